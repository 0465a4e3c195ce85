from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import (
    BLUE,
    CLASS_MARKERS,
    GRAY,
    GREEN,
    ORANGE,
    PURPLE,
    SERIES,
    SKY,
    STYLE,
    VERMILION,
    WIDTH,
    add_title,
    legend_columns,
    stage_label,
)


def _curve(
    axes: Axes, lines: Sequence[dict], key: str, style: dict, label: str
) -> None:
    lines = [line for line in lines if key in line]
    if not lines:
        return
    # one point for each epoch, the mean of its logged values
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


@rc_context(STYLE)
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
    keys = sorted(
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
    if keys:
        panels.append('knn')
    if not panels:
        raise ValueError(
            'The log holds neither a loss nor an accuracy to draw.'
        )
    unit = 'epoch' if any('epoch' in line for line in train) else 'iteration'
    # two side by side, a third one below
    rows = [panels[:2], panels[2:]] if panels[2:] else [panels]
    figure = Figure((WIDTH, 0.4 + 2.7 * len(rows)), layout='constrained')
    add_title(figure, title)
    lines = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for line, row in zip(lines, rows, strict=True):
        parts = line.subfigures(1, len(row), squeeze=False)[0]
        for part, panel in zip(parts, row, strict=True):
            axes = part.subplots()
            axes.set_xlabel(unit)
            axes.xaxis.set_major_locator(
                MaxNLocator(integer=True, min_n_ticks=1)
            )
            _draw_panel(axes, panel, train, val, keys, stages)
            names = axes.get_legend_handles_labels()[1]
            # of its own panel, below it
            part.legend(
                loc='outside lower center',
                ncols=legend_columns(names, WIDTH / len(row)),
            )
    return figure


def _draw_panel(
    axes: Axes,
    panel: str,
    train: Sequence[dict],
    val: Sequence[dict],
    keys: Sequence[str],
    stages: Sequence[str],
) -> None:
    if panel == 'loss':
        axes.set_title('Loss')
        style = dict(color=GRAY, linestyle='--', marker='s')
        _curve(axes, train, 'loss', style, 'training')
    elif panel == 'rotation':
        axes.set_title('Rotation accuracy')
        axes.set_ylabel('accuracy (%)')
        style = dict(color=GRAY, linestyle='--', marker='s')
        _curve(axes, train, 'rotation_accuracy', style, 'training')
        style = dict(color=BLUE, marker='o')
        _curve(axes, val, 'rotation/accuracy', style, 'validation')
    else:
        axes.set_title('kNN accuracy (validation)')
        axes.set_ylabel('accuracy (%)')
        colors = (SKY, BLUE, GREEN, VERMILION, ORANGE, PURPLE)
        for i, key in enumerate(keys):
            style = dict(
                color=colors[i % len(colors)],
                marker=CLASS_MARKERS[i % len(CLASS_MARKERS)],
            )
            name = stages[i] if i < len(stages) else f'{i + 1}'
            _curve(axes, val, key, style, stage_label(name))


@rc_context(STYLE)
def plot_transfer(
    runs: Mapping[str, Sequence[tuple[Sequence[dict], Sequence[dict]]]],
    metrics: Sequence[str],
    unit: str,
    title: str = 'Fine-tuning',
) -> Figure:
    """Draw losses and validation of runs from different initializations.

    Args:
        runs (Mapping[str, Sequence[tuple[Sequence[dict], Sequence[dict]]]]):
            Name of the initialization, at most four -> for each seed the
            logged lines of training and of validation, see
            :func:`read_scalars`; of all seeds at the same steps.
        metrics (Sequence[str]): Keys of validation to draw, in percent.
        unit (str): What ``step`` of the validation counts: 'iteration' or
            'epoch'.
        title (str): Headline. Defaults to 'Fine-tuning'.

    Returns:
        Figure: A panel for the loss and one for each metric; lines are means
        over the seeds, shades reach from the smallest to the largest value.
    """
    figure = Figure((3.6 * (1 + len(metrics)), 3.6), layout='constrained')
    add_title(figure, title)
    row = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
    for axes, key in zip(row, ('loss', *metrics), strict=True):
        axes.set_title('loss (training)' if key == 'loss' else f'{key} (%)')
        axes.set_xlabel('iteration' if key == 'loss' else unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for i, ((name, seeds), style) in enumerate(
            zip(runs.items(), SERIES, strict=False)
        ):
            # a run that has measured nothing has no value
            points: dict[float, list[float]] = {}
            for seed in seeds:
                for line in seed[key != 'loss']:
                    if key in line:
                        points.setdefault(line['step'], []).append(line[key])
            steps = sorted(points)
            axes.fill_between(
                steps,
                [min(points[step]) for step in steps],
                [max(points[step]) for step in steps],
                color=style['color'],
                alpha=0.15,
                linewidth=0,
            )
            every = max(1, len(steps) // 12)
            # where curves coincide, each is seen: the first are broader, and
            # have their markers, which are larger, at other steps if they can
            later = len(runs) - 1 - i
            axes.plot(
                steps,
                [np.mean(points[step]) for step in steps],
                label=name,
                linewidth=1.5 + 1.5 * later,
                markersize=4 + 2 * later,
                markevery=(i * every // len(runs), every),
                **style,
            )
        # room for the large markers
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4)
    return figure
