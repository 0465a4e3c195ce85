import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import (
    BLUE,
    GRAY,
    ORANGE,
    STYLE,
    VERMILION,
    WIDTH,
    add_title,
    wrap,
)

# height of the title and the note below it, in inches
HEADLINE = 0.62
# pixels of an image on a contact sheet, and between two
THUMBNAIL = 96
GAP = 4
# inches between what is on a page
SPACE = 0.08
# points of small texts on a page
SMALL = 9


def _add_headline(figure: Figure, title: str, note: str) -> None:
    """Write a title and an explanation above the axes."""
    width, height = figure.get_size_inches()
    left = 0.1 / width
    figure.text(
        left,
        1 - 0.12 / height,
        title,
        va='top',
        fontsize=STYLE['figure.titlesize'],
        fontweight=STYLE['figure.titleweight'],
    )
    figure.text(left, 1 - 0.38 / height, note, va='top')


@rc_context(STYLE)
def plot_image_table(
    columns: Mapping[str, Sequence[np.ndarray]], title: str
) -> Figure:
    """Draw images side by side.

    Args:
        columns (Mapping[str, Sequence[ndarray]]): Heading -> an image for
            each row, uint8 (H, W, 3) in RGB order.
        title (str): Headline.

    Returns:
        Figure: The page; the images of a row are equally high.
    """
    first = next(iter(columns.values()))
    side = 2.6
    heights = [side * len(p) / p.shape[1] for p in first]
    figure = Figure(
        (side * len(columns), sum(heights) + 0.7), layout='constrained'
    )
    add_title(figure, title)
    grid = figure.subplots(
        *(len(first), len(columns)), squeeze=False, height_ratios=heights
    )
    for (name, images), line in zip(columns.items(), grid.T, strict=True):
        line[0].set_title(name)
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image)
            axes.set_axis_off()
    return figure


def contact_sheet(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Put images into rows, scaled to cells of one size.

    Args:
        images (Sequence[ndarray]): uint8 (H, W, 3) in RGB order, of any
            sizes.
        columns (int): Images in a row.

    Returns:
        ndarray: uint8 (height, width, 3): each image in the middle of its
        cell, whose longer side is 96 pixels; white between them.
    """
    rows = -(-len(images) // columns)
    across = min(len(images), columns)
    side = THUMBNAIL + GAP
    canvas = np.full((rows * side, across * side, 3), 255, np.uint8)
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        scale = THUMBNAIL / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        # small images keep their pixels
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        small = cv2.resize(image, size, interpolation=way)
        top = i // columns * side + (THUMBNAIL - size[1]) // 2
        left = i % columns * side + (THUMBNAIL - size[0]) // 2
        canvas[top : top + size[1], left : left + size[0]] = small
    return canvas


def _make_page(title: str, note: str, height: float) -> tuple[Figure, Axes]:
    """Make a page with a headline, and axes below it in inches.

    x counts from the left to WIDTH, y from the headline down to ``height``.
    """
    inner = WIDTH - 2 * SPACE
    size = STYLE['figure.titlesize']
    parts = []
    for text, points, bold in ((title, size, True), (note, SMALL, False)):
        lines = wrap(text, inner, points, bold)
        parts.append((lines, points, bold, points / 72 * 1.3))
    head = 2 * SPACE + sum(
        (lines.count('\n') + 1) * line for lines, _, _, line in parts
    )
    total = head + height
    figure = Figure((WIDTH, total))
    y = SPACE
    for lines, points, bold, line in parts:
        figure.text(
            SPACE / WIDTH,
            1 - y / total,
            lines,
            va='top',
            fontsize=points,
            fontweight='bold' if bold else 'normal',
            linespacing=1.1,
        )
        y += (lines.count('\n') + 1) * line
    axes = figure.add_axes((0, 0, 1, height / total))
    axes.set_axis_off()
    # images don't change limits that are set
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    return figure, axes


def _show(
    axes: Axes, image: np.ndarray, x: float, y: float, side: float
) -> None:
    """Draw an image into the middle of a square, with its own proportions."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    left, top = x + (side - scale * width) / 2, y + (side - scale * height) / 2
    axes.imshow(
        image,
        extent=(left, left + scale * width, top + scale * height, top),
        interpolation='nearest',
        aspect='auto',
        zorder=2,
    )


@rc_context(STYLE)
def plot_neighbors(
    queries: Sequence[tuple[np.ndarray, str]],
    neighbors: Mapping[
        str, Sequence[Sequence[tuple[np.ndarray, bool | None]]]
    ],
    title: str = 'Nearest neighbors',
) -> Figure:
    """Draw query images with their nearest neighbors.

    Args:
        queries (Sequence[tuple[ndarray, str]]): Images, uint8 (H, W, 3) in
            RGB order, with the name of their class, or ''.
        neighbors (Mapping[str, Sequence[Sequence[tuple[ndarray, bool]]]]):
            Name of a network -> for each query its neighbors, nearest
            first: image, and whether it is of the query's class; None where
            there are no classes.
        title (str): Headline. Defaults to 'Nearest neighbors'.

    Returns:
        Figure: For each query one row of neighbors a network. A blue frame
        marks a neighbor of the same class, an orange one with a cross
        another class.
    """
    names = list(neighbors)
    count = max(len(row) for rows in neighbors.values() for row in rows)
    labeled = any(
        right is not None
        for rows in neighbors.values()
        for row in rows
        for _, right in row
    )
    # in inches: the query, the networks' names, the neighbors
    large = 0.75
    letter = 0.54 * SMALL / 72
    names_wide = min(0.95, letter * (1 + max(map(len, names))))
    start = SPACE + large + names_wide + 3 * SPACE
    cell = min(0.62, (WIDTH - SPACE - start) / count)
    # a query and its name may be higher than the rows
    row_high = max(cell, (large + 0.2 * labeled) / len(names))
    block = row_high * len(names) + 2 * SPACE
    if labeled:
        what = (
            'nearest labeled ones, nearest first. Blue: same class; orange '
            'with a cross: another class.'
        )
    else:
        what = 'nearest other images, nearest first.'
    figure, axes = _make_page(
        title, f'Left: an image; beside it the {what}', block * len(queries)
    )
    for i, (image, label) in enumerate(queries):
        y = i * block
        middle = y + row_high * len(names) / 2
        top = middle - large / 2 - 0.1 * labeled
        _show(axes, image, SPACE, top, large)
        axes.text(
            SPACE + large / 2,
            top + large + 0.03,
            wrap(label, large + 0.1, SMALL),
            ha='center',
            va='top',
            fontsize=SMALL,
        )
        for j, name in enumerate(names):
            top = y + row_high * j + (row_high - cell) / 2
            axes.text(
                start - SPACE,
                top + cell / 2,
                wrap(name, names_wide, SMALL),
                ha='right',
                va='center',
                fontsize=SMALL,
            )
            for n, (found, right) in enumerate(neighbors[name][i]):
                x = start + n * cell
                _show(
                    axes,
                    found,
                    x + 0.07 * cell,
                    top + 0.07 * cell,
                    0.86 * cell,
                )
                if right is not None:
                    _frame(axes, x, top, cell, right)
    return figure


def _frame(axes: Axes, x: float, y: float, cell: float, right: bool) -> None:
    """Mark an image as right or wrong."""
    # a filled square below the image
    axes.add_patch(
        Rectangle(
            (x + 0.02 * cell, y + 0.02 * cell),
            0.96 * cell,
            0.96 * cell,
            color=BLUE if right else VERMILION,
            linewidth=0,
            zorder=1,
        )
    )
    if not right:
        axes.plot(
            x + 0.84 * cell,
            y + 0.16 * cell,
            marker='X',
            markersize=8,
            color=VERMILION,
            markeredgecolor='white',
            markeredgewidth=0.9,
            zorder=3,
        )


@rc_context(STYLE)
def plot_image_groups(
    groups: Mapping[str, Sequence[np.ndarray]],
    title: str,
    note: str,
    per_row: int,
    columns: int = 1,
) -> Figure:
    """Draw groups of images, each below its caption.

    Args:
        groups (Mapping[str, Sequence[ndarray]]): Caption -> images, uint8
            (H, W, 3) in RGB order, of any sizes.
        title (str): Headline.
        note (str): Explanation below it.
        per_row (int): Images side by side in a group.
        columns (int): Groups side by side. Defaults to 1.

    Returns:
        Figure: The page.
    """
    wide = (WIDTH - (columns + 1) * SPACE) / columns
    captions = [wrap(name, wide, STYLE['font.size']) for name in groups]
    sheets = [contact_sheet(images, per_row) for images in groups.values()]
    scale = wide / (per_row * (THUMBNAIL + GAP))
    line = STYLE['font.size'] / 72 * 1.25
    places, y = [], 0.0
    for first in range(0, len(groups), columns):
        part = range(first, min(first + columns, len(groups)))
        head = SPACE + line * max(captions[i].count('\n') + 1 for i in part)
        places += [(i % columns * (wide + SPACE) + SPACE, y) for i in part]
        places = places[:first] + [
            (x, top + head) for x, top in places[first:]
        ]
        y += head + scale * max(len(sheets[i]) for i in part) + SPACE
    figure, axes = _make_page(title, note, y)
    for caption, sheet, (x, top) in zip(captions, sheets, places, strict=True):
        axes.text(x, top - 0.03, caption, va='bottom')
        height, width = (scale * side for side in sheet.shape[:2])
        axes.imshow(
            sheet,
            extent=(x, x + width, top + height, top),
            aspect='auto',
        )
    return figure


@rc_context(STYLE)
def plot_pairs(
    pairs: Sequence[tuple[np.ndarray, np.ndarray, Sequence[str]]],
    title: str,
    note: str,
) -> Figure:
    """Draw images two by two.

    Args:
        pairs (Sequence[tuple[ndarray, ndarray, Sequence[str]]]): Two images,
            uint8 (H, W, 3) in RGB order, and lines of text beside them.
        title (str): Headline.
        note (str): Explanation below it.

    Returns:
        Figure: A row for each pair.
    """
    side = 0.85
    left = 3 * SPACE + 2 * side
    figure, axes = _make_page(title, note, (side + SPACE) * len(pairs))
    for i, (*images, lines) in enumerate(pairs):
        y = i * (side + SPACE)
        for j, image in enumerate(images):
            _show(axes, image, SPACE + j * (side + SPACE), y, side)
        text = '\n'.join(
            wrap(line, WIDTH - SPACE - left, SMALL) for line in lines
        )
        axes.text(left, y + side / 2, text, va='center', fontsize=SMALL)
    return figure


@rc_context(STYLE)
def plot_attention(
    images: Sequence[Mapping[str, np.ndarray]],
    maps: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    title: str,
    note: str,
) -> Figure:
    """Draw where networks respond to versions of images.

    Args:
        images (Sequence[Mapping[str, ndarray]]): For each image caption ->
            a version of it, uint8 (H, W, 3) in RGB order.
        maps (Mapping[str, Sequence[Mapping[str, ndarray]]]): Name of a
            network -> for each image caption -> how strongly it responds,
            float (h, w), 0 or more, of any resolution.
        title (str): Headline.
        note (str): Explanation below it.

    Returns:
        Figure: Two images side by side: their versions, and below them for
        each network the same in gray under the map, each from black, nothing,
        to yellow, its own maximum.
    """
    versions = max(map(len, images))
    names_wide, head = 0.9, 0.2
    left = 2 * SPACE + names_wide
    cell = (WIDTH - left - 2 * SPACE) / (2 * versions)
    block = head + cell * (1 + len(maps)) + 2 * SPACE
    figure, axes = _make_page(title, note, block * -(-len(images) // 2))
    for i, image in enumerate(images):
        x0 = left + i % 2 * (versions * cell + SPACE)
        y0 = i // 2 * block + head
        for n, (caption, pixels) in enumerate(image.items()):
            x = x0 + n * cell
            axes.text(
                x + cell / 2,
                y0 - 0.04,
                caption,
                ha='center',
                va='bottom',
                fontsize=SMALL,
            )
            inner = 0.94 * cell
            _show(axes, pixels, x, y0, inner)
            gray = np.repeat(pixels.mean(2, keepdims=True), 3, 2)
            for j, found in enumerate(maps.values(), 1):
                y = y0 + j * cell
                _show(axes, gray.astype(np.uint8), x, y, inner)
                energy = found[i][caption].astype(np.float64)
                axes.imshow(
                    energy,
                    extent=axes.images[-1].get_extent(),
                    cmap='inferno',
                    vmin=0,
                    vmax=float(energy.max()) or 1,
                    alpha=0.65,
                    interpolation='bilinear',
                    aspect='auto',
                    zorder=3,
                )
        for j, name in enumerate(maps if i % 2 == 0 else (), 1):
            axes.text(
                left - SPACE,
                y0 + (j + 0.5) * cell,
                wrap(name, names_wide, SMALL),
                ha='right',
                va='center',
                fontsize=SMALL,
            )
    return figure


@rc_context(STYLE)
def plot_orientation(
    groups: Mapping[str, Sequence[tuple[np.ndarray, Sequence[float]]]],
    rotations: Sequence[int],
    title: str = 'Orientation',
) -> Figure:
    """Draw images with how un-rotated each of their copies looks.

    Args:
        groups (Mapping[str, Sequence[tuple[ndarray, Sequence[float]]]]):
            Headline -> images, uint8 (H, W, 3) in RGB order, each with the
            probability of being un-rotated for every rotation.
        rotations (Sequence[int]): The angles in degrees.
        title (str): Headline of the page. Defaults to 'Orientation'.

    Returns:
        Figure: Per group a headline and rows of eight images as they are
        in the dataset; below each a bar and a number for each rotation:
        blue for the un-rotated copy, orange for the others.
    """
    columns, cell, bars, gap = 8, 1.0, 0.3, 0.24
    lines = {
        name: math.ceil(len(images) / columns)
        for name, images in groups.items()
    }
    headline = 0.36
    height = HEADLINE + sum(
        headline + count * (cell + bars + gap) for count in lines.values()
    )
    width = columns * (cell + 0.12) + 0.2
    figure = Figure((width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    _add_headline(
        figure,
        title,
        'Bars: probability of being un-rotated that each copy gets, rotated '
        f'by {", ".join(map(str, rotations))} degrees; full height is 1.',
    )
    step = cell / len(rotations)
    y = HEADLINE
    for name, images in groups.items():
        axes.text(0.12, y + headline / 2, name, va='center', fontsize=10)
        y += headline
        for i, (image, probabilities) in enumerate(images):
            x = 0.12 + (i % columns) * (cell + 0.12)
            line = y + (i // columns) * (cell + bars + gap)
            axes.imshow(
                image,
                extent=(x, x + cell, line + cell, line),
                interpolation='nearest',
                aspect='auto',
            )
            base = line + cell + bars
            axes.plot((x, x + cell), (base, base), color=GRAY, linewidth=0.8)
            for place, (angle, probability) in enumerate(
                zip(rotations, probabilities, strict=True)
            ):
                axes.add_patch(
                    Rectangle(
                        (x + (place + 0.15) * step, base),
                        0.7 * step,
                        -0.94 * bars * probability,
                        color=ORANGE if angle else BLUE,
                        linewidth=0,
                    )
                )
                axes.text(
                    x + (place + 0.5) * step,
                    base + 0.03,
                    f'{probability:.2f}',
                    ha='center',
                    va='top',
                    # smaller where eight numbers share the width
                    fontsize=5.5 if len(rotations) <= 4 else 3.2,
                )
        y += lines[name] * (cell + bars + gap)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure


@rc_context(STYLE)
def plot_patches(
    rows: Sequence[Sequence[np.ndarray]], title: str, note: str
) -> Figure:
    """Draw small images of one size in rows.

    Args:
        rows (Sequence[Sequence[ndarray]]): Images, uint8 (S, S, 3) in RGB
            order; rows may be of different lengths.
        title (str): Headline.
        note (str): Explanation below it.

    Returns:
        Figure: The page.
    """
    size = len(rows[0][0])
    gap = max(1, size // 8)
    columns = max(map(len, rows))
    step = size + gap
    page = np.full(
        (len(rows) * step - gap, columns * step - gap, 3), 255, np.uint8
    )
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = i * step, j * step
            page[y : y + size, x : x + size] = image
    width = 9.0
    margin = 0.1
    inner = width - 2 * margin
    height = inner * page.shape[0] / page.shape[1]
    figure = Figure((width, height + HEADLINE + margin))
    axes = figure.add_axes(
        (
            margin / width,
            margin / (height + HEADLINE + margin),
            inner / width,
            height / (height + HEADLINE + margin),
        )
    )
    axes.set_axis_off()
    axes.imshow(page, interpolation='nearest', aspect='auto')
    _add_headline(figure, title, note)
    return figure
