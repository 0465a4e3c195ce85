import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import BLUE, GRAY, ORANGE, STYLE, VERMILION, add_title

# height of the title and the note below it, in inches
HEADLINE = 0.62


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


@rc_context(STYLE)
def plot_neighbors(
    queries: Sequence[tuple[np.ndarray, str]],
    neighbors: Mapping[str, Sequence[Sequence[tuple[np.ndarray, bool]]]],
    title: str = 'Nearest neighbors',
) -> Figure:
    """Draw query images with their nearest neighbors.

    Args:
        queries (Sequence[tuple[ndarray, str]]): Images, uint8 (H, W, 3) in
            RGB order, with the name of their class.
        neighbors (Mapping[str, Sequence[Sequence[tuple[ndarray, bool]]]]):
            Name of a network -> for each query its neighbors, nearest
            first: image, and whether it is of the query's class.
        title (str): Headline. Defaults to 'Nearest neighbors'.

    Returns:
        Figure: Two columns of queries, each with one row of neighbors a
        network. A blue frame marks a neighbor of the same class, an orange
        one with a cross another class.
    """
    names = list(neighbors)
    count = max(len(row) for rows in neighbors.values() for row in rows)
    columns = 2 if len(queries) > 1 else 1
    lines = math.ceil(len(queries) / columns)
    # in units of a neighbor's side
    margin, gap = 2.0, 0.6
    side = min(len(names), 2)
    scale = 0.37  # inches
    # wide enough for the line below the headline
    width = max(columns * (margin + side + count) + 0.3, 8 / scale)
    height = lines * (len(names) + gap)
    figure = Figure((width * scale, height * scale + HEADLINE))
    axes = figure.add_axes((0, 0, 1, height * scale / figure.get_figheight()))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()

    def show(image: np.ndarray, x: float, y: float, size: float) -> None:
        # drawn over its frame, which is a filled square
        axes.imshow(
            image,
            extent=(x, x + size, y + size, y),
            interpolation='nearest',
            aspect='auto',
            zorder=2,
        )

    def frame(x: float, y: float, size: float, right: bool) -> None:
        axes.add_patch(
            Rectangle(
                (x, y),
                size,
                size,
                color=BLUE if right else VERMILION,
                linewidth=0,
                zorder=1,
            )
        )
        if not right:
            axes.plot(
                x + size - 0.14,
                y + 0.14,
                marker='X',
                markersize=7,
                color=VERMILION,
                markeredgecolor='white',
                markeredgewidth=0.8,
                zorder=3,
            )

    for i, (image, label) in enumerate(queries):
        x = (i // lines) * (margin + side + count) + 0.15
        y = (i % lines) * (len(names) + gap) + 0.1
        middle = y + len(names) / 2
        show(image, x, middle - side / 2, side)
        axes.text(
            x + side / 2,
            middle + side / 2 + 0.05,
            label,
            ha='center',
            va='top',
            fontsize=7,
        )
        for j, name in enumerate(names):
            start = x + side + margin - 0.3
            axes.text(
                start - 0.15,
                y + j + 0.5,
                name,
                ha='right',
                va='center',
                fontsize=7,
            )
            for n, (found, right) in enumerate(neighbors[name][i]):
                show(found, start + n + 0.08, y + j + 0.08, 0.84)
                frame(start + n + 0.02, y + j + 0.02, 0.96, right)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    _add_headline(
        figure,
        title,
        'Large: a test image; beside it the nearest labeled ones, nearest '
        'first. Blue: same class; orange with a cross: another class.',
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
