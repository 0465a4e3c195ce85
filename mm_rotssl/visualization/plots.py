"""Images of what was learned, as matplotlib figures.

Nothing is shown or saved here, and pyplot's global state is not touched:
``figure.savefig(path)`` does it. Colors are told apart with any color
vision; where they carry a meaning, a shape carries it too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from mm_rotssl.evaluation.functional import mean_and_std

# Okabe and Ito's palette
BLUE, ORANGE, VERMILLION, GREEN = '#0072B2', '#E69F00', '#D55E00', '#009E73'
PURPLE, SKY = '#CC79A7', '#56B4E9'
GRAY, INK = '#7F7F7F', '#222222'
# Tol's "muted" palette, for many classes; the two lightest made darker
CLASS_COLORS = (
    '#332288',
    '#3FA0D8',
    '#44AA99',
    '#117733',
    '#999933',
    '#C99A1A',
    '#CC6677',
    '#882255',
    '#AA4499',
    '#666666',
)
CLASS_MARKERS = 'osD^v<>'
# color, line and marker of the networks that are compared
SERIES = (
    dict(color=GRAY, linestyle='--', marker='s'),
    dict(color=BLUE, linestyle='-', marker='o'),
    dict(color=VERMILLION, linestyle=':', marker='^'),
    dict(color=GREEN, linestyle='-.', marker='D'),
)

_STYLE: dict[Any, Any] = {
    'figure.dpi': 150,
    'font.size': 9,
    'text.color': INK,
    'axes.labelcolor': INK,
    'axes.titlesize': 10,
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': '#E6E6E6',
    'legend.edgecolor': 'white',
    'legend.fontsize': 8,
    'figure.titlesize': 12,
    'figure.titleweight': 'bold',
}


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha='left')


def _curve(
    axes: Axes, lines: Sequence[dict], key: str, style: dict, label: str
) -> None:
    lines = [line for line in lines if key in line]
    # one point an epoch: the mean of what was logged in it
    points: dict[float, list[float]] = {}
    for line in lines:
        x = line.get('epoch', line['step'])
        points.setdefault(x, []).append(line[key])
    axes.plot(
        list(points),
        [np.mean(values) for values in points.values()],
        label=label,
        markevery=max(1, len(points) // 15),
        markersize=4,
        **style,
    )


def _legend_below(axes: Axes) -> None:
    """Where it covers no curve."""
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.16), ncols=4)


@rc_context(_STYLE)
def plot_training_curves(
    train: Sequence[dict],
    val: Sequence[dict],
    stages: Sequence[str] = (),
    title: str = 'Training',
) -> Figure:
    """Draw the loss, and what validation measured, over the epochs.

    Args:
        train (Sequence[dict]): Logged lines of training, see
            :func:`read_scalars`: ``loss`` and, if there,
            ``rotation_accuracy``. Lines of the same ``epoch`` are averaged;
            without that key ``step`` counts.
        val (Sequence[dict]): Logged lines of validation: ``rotation/
            accuracy`` and ``knn/stage*``, as far as they are there.
        stages (Sequence[str]): Names of the stages; numbers are used where
            it is too short. Defaults to ().
        title (str): Headline. Defaults to 'Training'.

    Returns:
        Figure: A panel each for the loss, the rotation accuracy (training
        and validation) and the kNN accuracy of every stage; those without
        any value are left out.

    Raises:
        ValueError: If there is nothing to draw.
    """
    stages = sorted(
        {key for line in val for key in line if key.startswith('knn/stage')},
        key=lambda key: int(key.removeprefix('knn/stage')),
    )
    panels = []
    if any('loss' in line for line in train):
        panels.append('loss')
    if any('rotation_accuracy' in line for line in train) or any(
        'rotation/accuracy' in line for line in val
    ):
        panels.append('rotation')
    if stages:
        panels.append('knn')
    if not panels:
        raise ValueError(
            'The log holds neither a loss nor an accuracy to draw.'
        )
    unit = 'epoch' if any('epoch' in line for line in train) else 'iteration'
    figure = Figure((3.6 * len(panels), 3.3), layout='constrained')
    _title(figure, title)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(row, panels, strict=True):
        axes.set_xlabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if panel == 'loss':
            axes.set_title('Loss (training)')
            axes.set_ylabel('loss')
            _curve(axes, train, 'loss', dict(color=BLUE, marker='o'), 'loss')
            axes.set_ylim(bottom=0)
        elif panel == 'rotation':
            axes.set_title('Rotation accuracy')
            axes.set_ylabel('accuracy (%)')
            style = dict(color=GRAY, linestyle='--', marker='s')
            _curve(axes, train, 'rotation_accuracy', style, 'training')
            style = dict(color=BLUE, marker='o')
            _curve(axes, val, 'rotation/accuracy', style, 'validation')
            _legend_below(axes)
        else:
            axes.set_title('kNN accuracy (validation)')
            axes.set_ylabel('accuracy (%)')
            colors = (SKY, BLUE, GREEN, VERMILLION, ORANGE, PURPLE)
            for i, key in enumerate(stages):
                style = dict(
                    color=colors[i % len(colors)],
                    marker=CLASS_MARKERS[i % len(CLASS_MARKERS)],
                )
                name = stages[i] if i < len(stages) else f'{i + 1}'
                _curve(axes, val, key, style, f'stage {name}')
            _legend_below(axes)
    return figure


@rc_context(_STYLE)
def plot_transfer(
    runs: Mapping[str, Sequence[tuple[Sequence[dict], Sequence[dict]]]],
    metrics: Sequence[str],
    unit: str,
    title: str = 'Fine-tuning',
) -> Figure:
    """Draw losses and validation of runs that began with other weights.

    Args:
        runs (Mapping[str, Sequence[tuple[Sequence[dict], Sequence[dict]]]]):
            Name of what they began with, at most four -> for each seed the
            logged lines of training and of validation, see
            :func:`read_scalars`; of all seeds at the same steps.
        metrics (Sequence[str]): Keys of validation to draw, in percent.
        unit (str): What ``step`` of the validations counts.
        title (str): Headline. Defaults to 'Fine-tuning'.

    Returns:
        Figure: A panel for the loss and one for each metric; lines are means
        over the seeds, shades reach from the smallest to the largest value.
    """
    figure = Figure((3.6 * (1 + len(metrics)), 3.6), layout='constrained')
    _title(figure, title)
    row = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
    for axes, key in zip(row, ('loss', *metrics), strict=True):
        axes.set_title('loss (training)' if key == 'loss' else f'{key} (%)')
        axes.set_xlabel('iteration' if key == 'loss' else unit)
        for (name, seeds), style in zip(runs.items(), SERIES, strict=False):
            parts = [seed[key != 'loss'] for seed in seeds]
            steps = [line['step'] for line in parts[0] if key in line]
            values = np.array(
                [[line[key] for line in part if key in line] for part in parts]
            )
            axes.fill_between(
                steps,
                values.min(0),
                values.max(0),
                color=style['color'],
                alpha=0.15,
                linewidth=0,
            )
            axes.plot(
                steps,
                values.mean(0),
                label=name,
                markersize=4,
                markevery=max(1, len(steps) // 12),
                **style,
            )
        axes.set_ylim(bottom=0)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4)
    return figure


@rc_context(_STYLE)
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
    _title(figure, title)
    grid = figure.subplots(
        *(len(first), len(columns)), squeeze=False, height_ratios=heights
    )
    for (name, images), line in zip(columns.items(), grid.T, strict=True):
        line[0].set_title(name)
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image)
            axes.set_axis_off()
    return figure


@rc_context(_STYLE)
def plot_stage_accuracy(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    stages: Sequence[str],
    chance: float,
    title: str = 'Accuracy by stage',
) -> Figure:
    """Draw accuracy by stage for several networks.

    Args:
        panels (Mapping[str, Mapping[str, Sequence[Sequence[float]]]]): Title
            of a panel -> name of a network, at most four -> for each stage
            the repeated measurements, in percent.
        stages (Sequence[str]): Names of the stages.
        chance (float): Accuracy of guessing, in percent.
        title (str): Headline. Defaults to 'Accuracy by stage'.

    Returns:
        Figure: A panel each with a common axis; points are means, bars
        reach one sample standard deviation up and down.
    """
    figure = Figure((1 + 2.2 * len(panels), 3.6), layout='constrained')
    _title(figure, title)
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, networks) in zip(row, panels.items(), strict=True):
        axes.set_title(name)
        axes.set_xticks(range(len(stages)), stages)
        axes.set_xlim(-0.4, len(stages) - 0.6)
        axes.set_xlabel('stage')
        axes.axhline(chance, color=GRAY, linewidth=1, linestyle=':')
        for i, (network, results) in enumerate(networks.items()):
            summary = [mean_and_std(values) for values in results]
            # side by side, so that the bars don't hide each other
            shift = 0.12 * (i - (len(networks) - 1) / 2)
            axes.errorbar(
                [x + shift for x in range(len(stages))],
                [mean for mean, _ in summary],
                [spread or 0 for _, spread in summary],
                label=network,
                capsize=3,
                markersize=5,
                **SERIES[i],
            )
    row[0].set_ylabel('test accuracy (%)')
    row[0].set_ylim(0, 102)
    row[0].text(
        len(stages) - 0.62, chance + 1, 'chance', ha='right', color=GRAY
    )
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4)
    return figure


@rc_context(_STYLE)
def plot_comparison(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    rows: Sequence[str],
    baselines: Mapping[str, Sequence[float]],
    title: str,
) -> Figure:
    """Draw accuracy of several methods, each in some variants.

    Args:
        panels (Mapping[str, Mapping[str, Sequence[Sequence[float]]]]): Title
            of a panel -> name of a variant, at most three -> for each row
            the repeated measurements, in percent.
        rows (Sequence[str]): Names of the methods, from above.
        baselines (Mapping[str, Sequence[float]]): Title of a panel ->
            measurements of the untrained network, in percent.
        title (str): Headline.

    Returns:
        Figure: A panel each; large marks are means, small ones single
        measurements, the dashed line and its shade the mean of the untrained
        network and the range of its measurements.
    """
    figure = Figure(
        (1.2 + 3.6 * len(panels), 1.4 + 0.5 * len(rows)), layout='constrained'
    )
    _title(figure, title)
    line = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, variants) in zip(line, panels.items(), strict=True):
        axes.set_title(name)
        axes.set_xlabel('test accuracy (%)')
        found = baselines[name]
        axes.axvspan(min(found), max(found), color=GRAY, alpha=0.2, lw=0)
        axes.axvline(
            float(np.mean(found)),
            color=GRAY,
            linestyle='--',
            label='untrained',
        )
        for i, (variant, results) in enumerate(variants.items()):
            style = {**SERIES[i + 1], 'linestyle': ''}
            shift = 0.3 * (i - (len(variants) - 1) / 2)
            for row, values in enumerate(results):
                axes.plot(
                    values,
                    [row + shift] * len(values),
                    markersize=3,
                    alpha=0.5,
                    **style,
                )
            axes.plot(
                [np.mean(values) for values in results],
                [row + shift for row in range(len(rows))],
                label=variant,
                markersize=7,
                **style,
            )
    # shared by all
    line[0].set_yticks(range(len(rows)), rows)
    line[0].set_ylim(len(rows) - 0.5, -0.5)
    handles, labels = line[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4)
    return figure


@rc_context(_STYLE)
def plot_neighbors(
    queries: Sequence[tuple[np.ndarray, str]],
    neighbors: Mapping[str, Sequence[Sequence[tuple[np.ndarray, bool]]]],
    title: str = 'Nearest neighbors',
) -> Figure:
    """Draw images with those that networks find most alike.

    Args:
        queries (Sequence[tuple[ndarray, str]]): Images, uint8 (H, W, 3) in
            RGB order, with the name of their class.
        neighbors (Mapping[str, Sequence[Sequence[tuple[ndarray, bool]]]]):
            Name of a network -> for each query its neighbors, nearest
            first: image, and whether it is of the query's class.
        title (str): Headline. Defaults to 'Nearest neighbors'.

    Returns:
        Figure: Two columns of queries, each with one row of neighbors a
        network. A blue frame marks a neighbor of the same class; a red one
        with a cross, another class.
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
    figure = Figure((width * scale, height * scale + 0.62))
    axes = figure.add_axes((0, 0, 1, height * scale / figure.get_figheight()))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()

    def show(image: np.ndarray, x: float, y: float, size: float) -> None:
        # above the frame, which is a filled square
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
                color=BLUE if right else VERMILLION,
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
                color=VERMILLION,
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
    figure.text(
        0.01,
        1 - 0.12 / figure.get_figheight(),
        title,
        va='top',
        fontsize=12,
        fontweight='bold',
    )
    figure.text(
        0.01,
        1 - 0.38 / figure.get_figheight(),
        'Large: a test image; beside it the nearest labeled ones, nearest '
        'first. Blue: same class; orange with a cross: another class.',
        va='top',
    )
    return figure


@rc_context(_STYLE)
def plot_embedding(
    embeddings: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    title: str = 'Embedding',
) -> Figure:
    """Draw features that were embedded in the plane.

    Args:
        embeddings (Mapping[str, ndarray]): Title of a panel -> positions
            (N, 2), whose scale and orientation carry no meaning.
        labels (ndarray): Classes, int (N,), from 0.
        classes (Sequence[str]): Name of each class.
        title (str): Headline. Defaults to 'Embedding'.

    Returns:
        Figure: A panel each. Names of one letter are drawn in place of
        points; else color and marker tell the class, and its name stands at
        the median of its points.
    """
    figure = Figure((5.4 * len(embeddings), 4.4), layout='constrained')
    short = all(len(name) == 1 for name in classes)
    _title(figure, title)
    row = figure.subplots(1, len(embeddings), squeeze=False)[0]
    for axes, (name, points) in zip(row, embeddings.items(), strict=True):
        axes.set_title(name)
        axes.set_aspect('equal', adjustable='datalim')
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(visible=True, color='#CCCCCC')
        axes.margins(0.03)
        present = np.unique(labels).tolist()
        for label in present:
            axes.scatter(
                *points[labels == label].T,
                s=56 if short else 24,
                color=CLASS_COLORS[label % len(CLASS_COLORS)],
                marker=rf'$\mathbf{{{classes[label]}}}$'
                if short
                else CLASS_MARKERS[label % len(CLASS_MARKERS)],
                edgecolors='none' if short else 'white',
                linewidths=0.4,
            )
        for label in present if not short else ():
            axes.text(
                *np.median(points[labels == label], 0),
                classes[label],
                ha='center',
                va='center',
                fontsize=13,
                fontweight='bold',
                path_effects=[withStroke(linewidth=3, foreground='white')],
            )
    return figure


@rc_context(_STYLE)
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
    headline, top = 0.36, 0.72
    height = top + sum(
        headline + count * (cell + bars + gap) for count in lines.values()
    )
    width = columns * (cell + 0.12) + 0.2
    figure = Figure((width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    def text(x: float, y: float, words: str, **style: Any) -> None:
        axes.text(x, y, words, ha='left', va='center', **style)

    text(0.12, 0.2, title, fontsize=12, fontweight='bold')
    text(
        0.12,
        0.5,
        'Bars: probability of being un-rotated that each copy gets, turned '
        f'by {", ".join(map(str, rotations))} degrees; full height is 1.',
    )
    step = cell / len(rotations)
    y = top
    for name, images in groups.items():
        text(0.12, y + headline / 2, name, fontsize=10)
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
                    # eight numbers have half the room of four
                    fontsize=5.5 if len(rotations) <= 4 else 3.2,
                )
        y += lines[name] * (cell + bars + gap)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure


@rc_context(_STYLE)
def plot_patches(
    rows: Sequence[Sequence[np.ndarray]], title: str, note: str
) -> Figure:
    """Draw small images of one size in rows.

    Args:
        rows (Sequence[Sequence[ndarray]]): Images, uint8 (S, S, 3) in RGB
            order; rows may be of different lengths.
        title (str): Headline.
        note (str): What stands below it.

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
    margin, top = 0.1, 0.62
    inner = width - 2 * margin
    height = inner * page.shape[0] / page.shape[1]
    figure = Figure((width, height + top + margin))
    axes = figure.add_axes(
        (
            margin / width,
            margin / (height + top + margin),
            inner / width,
            height / (height + top + margin),
        )
    )
    axes.set_axis_off()
    axes.imshow(page, interpolation='nearest', aspect='auto')
    left, full = margin / width, figure.get_figheight()
    style: Any = dict(fontsize=12, fontweight='bold')
    figure.text(left, 1 - 0.12 / full, title, va='top', **style)
    figure.text(left, 1 - 0.38 / full, note, va='top')
    return figure
