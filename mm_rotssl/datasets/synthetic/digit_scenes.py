"""Labeled scenes of real digits, for trying detection and segmentation.

They are laid out as COCO and PASCAL VOC lay out their files, so that what
reads those reads them too; nothing in them comes from either dataset.
"""

import importlib
import json
import math
import os
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from mm_rotssl.datasets.digits import Digits

# how many digits a scene holds, and how tall their ink is in pixels
COUNTS = (2, 4)
HEIGHTS = (16, 40)
# degrees to either side: 6 and 9 stay apart
TILT = 25
# share of the smaller of two boxes; their IoU stays below 0.09
OVERLAP = 0.15
PLACES = 20
# gray value from which the source counts as ink
INK = 0.5
SPLITS = ('train', 'val')
# side of an image of one digit; the tallest are drawn a little smaller
UNLABELED_SIZE = 40


class Scene(NamedTuple):
    """An image of N digits and what is visible of each.

    Attributes:
        image (ndarray): uint8 (H, W, 3), three equal channels.
        masks (ndarray): bool (N, H, W); no two intersect, none is empty.
        labels (ndarray): The digits, int64 (N,), 0 to 9.
    """

    image: np.ndarray
    masks: np.ndarray
    labels: np.ndarray


def mask_to_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Find the smallest box around a mask.

    Args:
        mask (ndarray): bool (H, W), not empty.

    Returns:
        tuple[int, int, int, int]: Left, top, right and bottom edge in
        pixels: the first column and row of the mask, and those after its
        last ones.
    """
    x, y = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
    return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


def _turned(gray: np.ndarray, scale: float, tilt: float) -> np.ndarray:
    """Draw an image larger and turned, with sharper edges.

    Args:
        gray (ndarray): float32 (S, S), 0 to 1.
        scale (float): By how much.
        tilt (float): Degrees, counter-clockwise.

    Returns:
        ndarray: Opacity, float32, 1/2 where the image is ``INK``; without
        empty rows and columns around.
    """
    middle = (len(gray) - 1) / 2
    # a turned square needs 1.42 times its side
    side = math.ceil(1.5 * len(gray) * scale) + 4
    matrix = cv2.getRotationMatrix2D((middle, middle), tilt, scale)
    shift = (side - 1) / 2 - middle
    matrix += np.array([0, 0, shift])
    values = cv2.warpAffine(gray, matrix, (side, side), flags=cv2.INTER_CUBIC)
    # steeper edges would fill the narrow holes of a 9 or an 8
    alpha = np.clip(1.5 * (values - INK) + 0.5, 0, 1)
    # what is so faint shows nowhere
    left, top, right, bottom = mask_to_box(alpha > 0.02)
    return alpha[top:bottom, left:right]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _pick(rng: np.random.Generator, digits: Digits) -> tuple[np.ndarray, int]:
    """Draw a digit: its image, float32 (S, S), 0 to 1, and its label."""
    info = digits.get_data_info(int(rng.integers(len(digits))))
    return info['img'][..., 0].astype(np.float32) / 255, info['gt_label']


def _paint(
    canvas: np.ndarray, alpha: np.ndarray, x: int, y: int, level: float
) -> None:
    part = canvas[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    part += (level - part) * alpha


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw smooth noise, float32 (size, size), most of it 20 to 90."""
    canvas = np.full((size, size), rng.uniform(35, 75), np.float32)
    for cells, strength in ((4, rng.uniform(4, 12)), (12, rng.uniform(2, 6))):
        noise = rng.standard_normal((cells, cells)).astype(np.float32)
        canvas += strength * cv2.resize(
            noise, (size, size), interpolation=cv2.INTER_CUBIC
        )
    return canvas


def _draw_stroke(
    rng: np.random.Generator, canvas: np.ndarray, level: float
) -> None:
    size = len(canvas)
    start = rng.uniform(0, size, 2)
    # far from upright: it would be a one
    angle = math.radians(rng.uniform(-50, 50))
    along = np.array([math.cos(angle), math.sin(angle)])
    across = along[::-1] * (-1, 1)
    length, bend = rng.uniform(10, 26), rng.uniform(-0.3, 0.3)
    t = np.linspace(0, 1, 9)[:, None]
    points = start + length * (t * along + 4 * bend * t * (1 - t) * across)
    drawn = np.zeros((size, size), np.uint8)
    cv2.polylines(
        drawn,
        # sixteenths of a pixel
        [np.rint(points * 16).astype(np.int32)],
        isClosed=False,
        color=255,
        thickness=int(rng.integers(1, 3)),
        lineType=cv2.LINE_AA,
        shift=4,
    )
    _paint(canvas, drawn.astype(np.float32) / 255, 0, 0, level)


def _draw_scrap(
    rng: np.random.Generator,
    canvas: np.ndarray,
    level: float,
    digits: Digits,
) -> None:
    gray, _ = _pick(rng, digits)
    side = len(gray)
    inked = np.argwhere(gray >= INK)
    row, column = inked[rng.integers(len(inked))]
    reach = 3 * side / 16
    near = np.abs(np.arange(side)[:, None] - (row, column)) < reach
    piece = gray * near[:, :1] * near[:, 1]
    # even its diagonal is shorter than the smallest digit
    height = _log_uniform(rng, HEIGHTS[0], 1.75 * HEIGHTS[0])
    alpha = _turned(piece, height / side, rng.uniform(0, 360))
    y, x = (int(rng.integers(len(canvas) - n + 1)) for n in alpha.shape)
    _paint(canvas, alpha, x, y, level)


def _overlaps(box: tuple, others: list[tuple]) -> bool:
    def area(left: int, top: int, right: int, bottom: int) -> int:
        return max(0, right - left) * max(0, bottom - top)

    for other in others:
        common = area(
            *np.maximum(box, other)[:2].tolist(),
            *np.minimum(box, other)[2:].tolist(),
        )
        if common > OVERLAP * min(area(*box), area(*other)):
            return True
    return False


def _place(
    rng: np.random.Generator,
    gray: np.ndarray,
    size: int,
    others: list[tuple],
) -> tuple[np.ndarray, int, int] | None:
    """Find a size, a tilt and a place for a digit.

    Args:
        rng (Generator): Where chance comes from.
        gray (ndarray): The digit, float32 (S, S), 0 to 1.
        size (int): Side of the scene in pixels.
        others (list[tuple]): Boxes to stay clear of.

    Returns:
        tuple[ndarray, int, int], optional: Opacity, float32, and its left
        and top edge; None if there was no room even for a small one.
    """
    # the source's own margins don't count; measured eight times as large
    _, top, _, bottom = mask_to_box(_turned(gray, 8, 0) >= 0.5)
    unit = 8 / (bottom - top)
    height = _log_uniform(rng, *HEIGHTS)
    tilt = rng.uniform(-TILT, TILT)
    while True:
        alpha = _turned(gray, height * unit, tilt)
        box = np.array(mask_to_box(alpha >= 0.5))
        room = size - np.array(alpha.shape[::-1])
        if (room >= 0).all():
            for _ in range(PLACES):
                corner = rng.integers(room + 1)
                if not _overlaps(tuple(box + np.tile(corner, 2)), others):
                    return alpha, int(corner[0]), int(corner[1])
        if height == HEIGHTS[0]:
            return None
        height = max(HEIGHTS[0], 0.75 * height)


def compose_scene(
    rng: np.random.Generator,
    digits: Digits,
    size: int = 96,
    counts: tuple[int, int] = COUNTS,
) -> Scene:
    """Draw digits and clutter on a textured ground.

    Two to four digits, 16 to 40 pixels tall (small ones are as likely as
    large ones on a logarithmic scale) and tilted by up to 25 degrees, lie
    wholly within the image and hardly on each other. Below them are
    unlabeled strokes and scraps of digits, too small to be one. A digit for
    which no room is found is drawn smaller or left out.

    Args:
        rng (Generator): Where chance comes from. The same state gives the
            same scene.
        digits (Digits): What digits and scraps are taken from; best with
            ``size=8``, that of the source.
        size (int): Side of the image in pixels. Defaults to 96.
        counts (tuple[int, int]): Least and largest number of digits to draw.
            Defaults to (2, 4).

    Returns:
        Scene: Image, masks and labels of the digits, at least one.

    Raises:
        ValueError: If ``size`` has no room for a digit.
    """
    if size < 2 * HEIGHTS[0]:
        raise ValueError(
            f'size={size} of a scene must be at least {2 * HEIGHTS[0]} '
            'pixels, or there is no room for a digit.'
        )
    canvas = _ground(rng, size)
    mean = float(canvas.mean())
    for _ in range(rng.integers(1, 4)):
        _draw_stroke(rng, canvas, mean + rng.uniform(40, 110))
    for _ in range(rng.integers(1, 5)):
        _draw_scrap(rng, canvas, mean + rng.uniform(40, 110), digits)
    masks: list[np.ndarray] = []
    boxes: list[tuple] = []
    labels: list[int] = []
    for _ in range(rng.integers(counts[0], counts[1] + 1)):
        gray, label = _pick(rng, digits)
        found = _place(rng, gray, size, boxes)
        if found is None:
            continue
        alpha, x, y = found
        _paint(canvas, alpha, x, y, mean + rng.uniform(80, 150))
        mask = np.zeros((size, size), bool)
        mask[y : y + alpha.shape[0], x : x + alpha.shape[1]] = alpha >= 0.5
        masks = [other & ~mask for other in masks]
        masks.append(mask)
        boxes.append(mask_to_box(mask))
        labels.append(label)
    canvas += rng.uniform(3, 8) * rng.standard_normal((size, size))
    image = np.rint(canvas).clip(0, 255).astype(np.uint8)
    return Scene(
        np.repeat(image[..., None], 3, axis=2),
        np.stack(masks),
        np.array(labels, np.int64),
    )


def generate_scenes(
    split: str, count: int, size: int = 96, seed: int = 0
) -> Iterator[Scene]:
    """Draw the scenes of a split.

    A scene depends on ``seed``, ``split``, ``size`` and its number only:
    more of them leave the first ones as they are.

    Args:
        split (str): 'train' or 'val', also of :class:`Digits`: no digit,
            and no scrap of one, is in both.
        count (int): How many.
        size (int): Side of the images in pixels. Defaults to 96.
        seed (int): 0 or more. Defaults to 0.

    Yields:
        Scene: One after the other.
    """
    digits = Digits(split=split, size=8)
    for number in range(count):
        rng = np.random.default_rng([seed, SPLITS.index(split), number])
        yield compose_scene(rng, digits, size)


def _write_unlabeled(folder: Path, count: int, seed: int) -> None:
    folder.mkdir()
    digits = Digits(split='train', size=8)
    for number in range(count):
        rng = np.random.default_rng([seed, len(SPLITS), number])
        scene = compose_scene(rng, digits, UNLABELED_SIZE, (1, 1))
        path = folder / f'{number:06d}.jpg'
        path.write_bytes(_jpeg(scene.image))


def _jpeg(image: np.ndarray) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, 95]
    return cv2.imencode('.jpg', image, settings)[1].tobytes()


def _coco_mask() -> Any:
    try:
        return importlib.import_module('pycocotools.mask')
    except ImportError as error:
        raise ImportError(
            'Masks are written with pycocotools, which is not installed: '
            'pip install pycocotools'
        ) from error


def _voc_palette() -> list[int]:
    """Colors of 256 values, as PASCAL VOC's tools number them.

    Bit ``3 k + c`` of a value is bit ``7 - k`` of channel c.
    """
    return [
        sum((value >> 3 * k + channel & 1) << 7 - k for k in range(3))
        for value in range(256)
        for channel in range(3)
    ]


def _voc_xml(name: str, scene: Scene, classes: tuple[str, ...]) -> bytes:
    def fill(parent: ET.Element, content: dict) -> None:
        for tag, value in content.items():
            child = ET.SubElement(parent, tag)
            if isinstance(value, dict):
                fill(child, value)
            else:
                child.text = str(value)

    height, width = scene.image.shape[:2]
    root = ET.Element('annotation')
    fill(
        root,
        dict(
            folder='VOC2012',
            filename=f'{name}.jpg',
            source=dict(
                database='Digit scenes',
                annotation='Digit scenes',
                image='Digit scenes',
            ),
            size=dict(width=width, height=height, depth=3),
            segmented=1,
        ),
    )
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        left, top, right, bottom = mask_to_box(mask)
        content = dict(
            name=classes[label],
            pose='Unspecified',
            truncated=0,
            difficult=0,
            # pixels count from 1, and the last ones belong to the box
            bndbox=dict(xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom),
        )
        fill(ET.SubElement(root, 'object'), content)
    ET.indent(root)
    return ET.tostring(root) + b'\n'


def _write_split(
    folder: Path, split: str, count: int, size: int, seed: int
) -> int:
    """Write one split of both layouts, and tell how many digits it holds."""
    coco_mask = _coco_mask()
    classes = Digits.METAINFO['classes']
    coco, voc = folder / 'coco', folder / 'VOCdevkit/VOC2012'
    places = {
        name: voc / name
        for name in (
            'JPEGImages',
            'Annotations',
            'SegmentationClass',
            'SegmentationObject',
            'ImageSets/Main',
            'ImageSets/Segmentation',
        )
    }
    folder = coco / f'{split}2017'
    for place in (folder, coco / 'annotations', *places.values()):
        place.mkdir(parents=True, exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    palette = _voc_palette()
    for number, scene in enumerate(generate_scenes(split, count, size, seed)):
        name = f'{split}_{number:06d}'
        jpeg = _jpeg(scene.image)
        (folder / f'{name}.jpg').write_bytes(jpeg)
        (places['JPEGImages'] / f'{name}.jpg').write_bytes(jpeg)
        (places['Annotations'] / f'{name}.xml').write_bytes(
            _voc_xml(name, scene, classes)
        )
        for kind, values in (
            ('SegmentationClass', scene.labels + 1),
            ('SegmentationObject', np.arange(len(scene.labels)) + 1),
        ):
            # masks don't intersect
            indices = np.tensordot(values, scene.masks, 1).astype(np.uint8)
            image = Image.fromarray(indices)
            image.putpalette(palette)
            image.save(places[kind] / f'{name}.png')
        images.append(
            dict(
                id=number + 1,
                file_name=f'{name}.jpg',
                width=size,
                height=size,
            )
        )
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            left, top, right, bottom = map(float, mask_to_box(mask))
            encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number + 1,
                    category_id=int(label) + 1,
                    bbox=[left, top, right - left, bottom - top],
                    area=int(mask.sum()),
                    iscrowd=0,
                    segmentation=dict(
                        size=[size, size], counts=encoded['counts'].decode()
                    ),
                )
            )
    content = dict(
        info=dict(description=f'Digit scenes, {split}, seed {seed}'),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[
            dict(id=number + 1, name=name, supercategory='digit')
            for number, name in enumerate(classes)
        ],
    )
    file = coco / 'annotations' / f'instances_{split}2017.json'
    file.write_text(json.dumps(content))
    names = ''.join(f'{split}_{number:06d}\n' for number in range(count))
    for kind in ('ImageSets/Main', 'ImageSets/Segmentation'):
        (places[kind] / f'{split}.txt').write_text(names)
    return len(annotations)


def write_scenes(
    out: str | Path,
    train: int = 200,
    val: int = 100,
    size: int = 96,
    seed: int = 0,
    unlabeled: int = 0,
) -> dict[str, int]:
    """Write scenes in the layouts of COCO and of PASCAL VOC.

    Only the layout is theirs: ``coco/{train,val}2017``, ``coco/annotations``
    and ``VOCdevkit/VOC2012`` hold the same images of digits. Classes are
    '0' to '9'; in COCO's files their ids are 1 to 10, and in the class maps
    of VOC 1 to 10 too, with 0 for the ground; no pixel is void (255).

    To pre-train on, ``unlabeled`` may hold other images, of 40 pixels and
    with a single digit of the training split, drawn in the same way.

    Args:
        out (str | Path): Folder, new or empty. It appears when it is
            complete.
        train (int): Number of scenes for training. Defaults to 200.
        val (int): Number of scenes for validation. Defaults to 100.
        size (int): Side of the images in pixels. Defaults to 96.
        seed (int): The same gives the same files, 0 or more. Defaults to 0.
        unlabeled (int): Number of images without labels. Defaults to 0.

    Returns:
        dict[str, int]: How many digits the scenes of 'train' and 'val' hold.

    Raises:
        FileExistsError: If there is something at ``out``.
        ImportError: If pycocotools is not installed.
        ValueError: If a number makes no sense.
    """
    for name, value, least in (
        ('train', train, 1),
        ('val', val, 1),
        ('seed', seed, 0),
        ('unlabeled', unlabeled, 0),
    ):
        if value < least:
            raise ValueError(
                f'{name}={value} of digit scenes must be at least {least}.'
            )
    out = Path(out).resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(
            f'"{out}" exists and is no empty folder: name another one for '
            'the scenes, or remove it.'
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f'.{out.name}.', dir=out.parent
    ) as temporary:
        # a folder in it: the temporary one itself is readable by its owner
        # only
        folder = Path(temporary) / out.name
        folder.mkdir()
        digits = {
            split: _write_split(folder, split, count, size, seed)
            for split, count in zip(SPLITS, (train, val), strict=True)
        }
        if unlabeled:
            _write_unlabeled(folder / 'unlabeled', unlabeled, seed)
        os.replace(folder, out)
    return digits
