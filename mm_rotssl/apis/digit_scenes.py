"""Scenes of digits, written and drawn."""

from pathlib import Path

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mm_rotssl.datasets import Digits
from mm_rotssl.datasets.synthetic.digit_scenes import (
    Scene,
    generate_scenes,
    mask_to_box,
    write_scenes,
)
from mm_rotssl.utils import save_figure
from mm_rotssl.visualization import CLASS_COLORS, plot_patches

# scenes of the preview, columns, and the side of one of their pixels
SHOWN, COLUMNS, ZOOM = 12, 6, 4


def write_digit_scenes(
    out: str | Path,
    train: int = 200,
    val: int = 100,
    size: int = 96,
    seed: int = 0,
    unlabeled: int = 0,
    preview: str | Path | None = None,
) -> dict[str, int]:
    """Write scenes of digits, and draw some of them.

    Args:
        out (str | Path): Folder, new or empty, see
            :func:`~mm_rotssl.datasets.synthetic.digit_scenes.write_scenes`.
        train (int): Number of scenes for training. Defaults to 200.
        val (int): Number of scenes for validation. Defaults to 100.
        size (int): Side of the images in pixels. Defaults to 96.
        seed (int): The same gives the same files, 0 or more. Defaults to 0.
        unlabeled (int): Number of images without labels. Defaults to 0.
        preview (str | Path, optional): File, ``.png``, for a figure of some
            scenes of training, plain and with boxes, masks and labels.
            Defaults to None, none.

    Returns:
        dict[str, int]: How many digits the scenes of 'train' and 'val' hold.

    Raises:
        FileExistsError: If there is something at ``out``.
        ImportError: If pycocotools is not installed.
        ValueError: If a number makes no sense, or ``preview`` has another
            suffix.
    """
    if preview is not None and Path(preview).suffix != '.png':
        raise ValueError(f'--preview {preview}: the name must end in .png')
    digits = write_scenes(out, train, val, size, seed, unlabeled)
    if preview is not None:
        figure = _plot_scenes(train, size, seed)
        save_figure(figure, Path(preview))
    return digits


def _enlarged(image: np.ndarray) -> np.ndarray:
    return image.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def _annotated(scene: Scene) -> np.ndarray:
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
    image = _enlarged(image)
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


def _plot_scenes(count: int, size: int, seed: int) -> Figure:
    scenes = list(generate_scenes('train', min(SHOWN, count), size, seed))
    rows = []
    for start in range(0, len(scenes), COLUMNS):
        shown = scenes[start : start + COLUMNS]
        rows.append([_enlarged(scene.image) for scene in shown])
        rows.append([_annotated(scene) for scene in shown])
    return plot_patches(
        rows,
        f'{len(scenes)} of {count} scenes for training',
        f'{size} pixels, seed {seed}. Below each: boxes, what is visible '
        'of the digits, and labels.',
    )
