"""Write scenes of real digits, to try detection and segmentation with.

Nothing is downloaded: the digits are those of mm_rotssl.Digits. The same
images are laid out twice, as COCO (OUT/coco) and PASCAL VOC
(OUT/VOCdevkit/VOC2012) lay out theirs. Scenes of training and of validation
hold digits of different images. OUT/unlabeled has images of single
digits, drawn in the same way from those of training.
"""

import argparse
import inspect
from pathlib import Path

import cv2
import numpy as np
from matplotlib.colors import to_rgb

from mm_rotssl.datasets import Digits
from mm_rotssl.datasets.synthetic.digit_scenes import (
    Scene,
    generate_scenes,
    mask_to_box,
    write_scenes,
)
from mm_rotssl.utils import save_figure
from mm_rotssl.visualization import CLASS_COLORS, plot_patches

SHOWN, COLUMNS, ZOOM = 12, 6, 4


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('out', type=Path, help='folder, new or empty')
    defaults = inspect.signature(write_scenes).parameters
    for name, what in (
        ('train', 'number of scenes for training'),
        ('val', 'number of scenes for validation'),
        ('size', 'side of the images in pixels'),
        ('seed', 'the same gives the same files'),
        ('unlabeled', 'number of images of one digit, to pre-train on'),
    ):
        parser.add_argument(
            f'--{name}',
            type=int,
            default=defaults[name].default,
            help=f'{what} (default: %(default)s)',
        )
    parser.add_argument(
        '--preview',
        type=Path,
        metavar='FILE.png',
        help='draw some scenes of training, plain and with boxes, masks and '
        'labels',
    )
    args = parser.parse_args()
    if args.preview is not None and args.preview.suffix != '.png':
        parser.error(f'--preview {args.preview}: the name must end in .png')
    return args


def enlarged(image: np.ndarray) -> np.ndarray:
    return image.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def annotated(scene: Scene) -> np.ndarray:
    """The image with boxes, masks and labels in the digits' colors."""
    # the classes' colors are dark, as is the ground
    colors = [
        tuple(round(255 * (0.35 + 0.65 * part)) for part in to_rgb(color))
        for color in CLASS_COLORS
    ]
    image = scene.image.copy()
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        tint = 0.4 * image[mask] + 0.6 * np.array(colors[label])
        image[mask] = np.rint(tint).astype(np.uint8)
    image = enlarged(image)
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        left, top, right, bottom = (ZOOM * edge for edge in mask_to_box(mask))
        cv2.rectangle(
            image, (left, top), (right - 1, bottom - 1), colors[label], 2
        )
        # above the box, or within it at the upper edge
        y = top - 6 if top >= 32 else top + 30
        for color, thickness in (((0, 0, 0), 7), ((255, 255, 255), 2)):
            cv2.putText(
                image,
                Digits.METAINFO['classes'][label],
                (left, y),
                cv2.FONT_HERSHEY_SIMPLEX,
                1.0,
                color,
                thickness,
                cv2.LINE_AA,
            )
    return image


def draw(count: int, size: int, seed: int, path: Path) -> Path:
    scenes = list(generate_scenes('train', min(SHOWN, count), size, seed))
    rows = []
    for start in range(0, len(scenes), COLUMNS):
        shown = scenes[start : start + COLUMNS]
        rows.append([enlarged(scene.image) for scene in shown])
        rows.append([annotated(scene) for scene in shown])
    return save_figure(
        plot_patches(
            rows,
            f'{len(scenes)} of {count} scenes for training',
            f'{size} pixels, seed {seed}. Below each: boxes, what is visible '
            'of the digits, and labels.',
        ),
        path,
    )


def main() -> None:
    args = parse_args()
    try:
        digits = write_scenes(
            *(args.out, args.train, args.val, args.size, args.seed),
            args.unlabeled,
        )
        for split, count in (('train', args.train), ('val', args.val)):
            print(f'{split}: {count} scenes of {digits[split]} digits')
        print(args.out / 'coco')
        print(args.out / 'VOCdevkit')
        if args.unlabeled:
            print(args.out / 'unlabeled')
        if args.preview is not None:
            print(draw(args.train, args.size, args.seed, args.preview))
    except (ValueError, ImportError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error


if __name__ == '__main__':
    main()
