from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import (
    GRAY,
    STYLE,
    WIDTH,
    add_title,
    legend_columns,
    stage_label,
    wrap,
)

# inches
PANEL_HEIGHT, SINGLE_HEIGHT = 2.2, 2.8
# a common chance is within the axes if it is not farther from the values than
# they spread, times this
NEAR_CHANCE = 1.0
CHANCE: dict[str, Any] = dict(color=GRAY, linestyle=':', linewidth=1.2)


@dataclass(frozen=True)
class MetricPanel:
    """What was measured by a metric, of networks and at places.

    Args:
        title (str): Of the metric.
        values (Mapping[str, Mapping[str | None, Sequence[Sequence[float]]]]):
            Name of a network -> place, such as a stage, None for the whole
            network -> for each training run the repeated measurements.
        unit (str): Such as '%'. Defaults to ''.
        better ('higher' | 'lower', optional): Defaults to None, neither.
        chance (Mapping[str, Mapping[str | None, float]]): Name of a network
            -> place -> what guessing gives. Defaults to nothing.
    """

    title: str
    values: Mapping[str, Mapping[str | None, Sequence[Sequence[float]]]]
    unit: str = ''
    better: Literal['higher', 'lower'] | None = None
    chance: Mapping[str, Mapping[str | None, float]] = field(
        default_factory=dict
    )


def summarize_runs(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean and spread of what was measured in one or several runs.

    Args:
        runs (Sequence[Sequence[float]]): For each training run the repeated
            measurements.

    Returns:
        tuple[float, float]: The mean of the runs' means, and the sample
        standard deviation: of those means, or, of a single run, of its
        measurements; 0 where there is but one.

    Examples:
        >>> summarize_runs([[1.0, 3.0]])
        (2.0, 1.4142135623730951)
        >>> summarize_runs([[1.0, 3.0], [6.0]])
        (4.0, 2.8284271247461903)
    """
    means = [float(np.mean(values)) for values in runs]
    repeated = means if len(runs) > 1 else runs[0]
    spread = np.std(repeated, ddof=1) if len(repeated) > 1 else 0
    return float(np.mean(means)), float(spread)


@rc_context(STYLE)
def plot_metrics(
    panels: Sequence[MetricPanel],
    styles: Mapping[str, Mapping[str, Any]],
    places: Sequence[str],
    title: str,
    axis: str = 'stage',
) -> Figure:
    """Draw what was measured of several networks, by stage.

    Args:
        panels (Sequence[MetricPanel]): The metrics.
        styles (Mapping[str, Mapping[str, Any]]): Name of a network ->
            settings of its line, see :func:`network_styles`.
        places (Sequence[str]): All stages, in order, or what else the values
            are ordered by.
        title (str): Headline.
        axis (str): What the places are. Defaults to 'stage'.

    Returns:
        Figure: A panel each with an axis of its own, which reaches as far
        as the values do; means, whose bars reach one sample standard
        deviation up and down, see :func:`summarize_runs`. Where chance is
        the same for all, a dotted line at it, or a remark at the edge where
        that is far away; else a dotted line a network.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    names = [*styles, 'chance']
    across = legend_columns(names, WIDTH)
    height = PANEL_HEIGHT if columns > 1 else SINGLE_HEIGHT
    legend = 0.2 * -(-len(names) // across) + 0.2
    figure = Figure(
        (WIDTH, 0.5 + rows * height + legend), layout='constrained'
    )
    add_title(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, panel in zip(grid, panels, strict=False):
        present = {key for found in panel.values.values() for key in found}
        order = [key for key in (*places, None) if key in present]
        width = WIDTH / columns - 0.6
        axes.set_title(wrap(_heading(panel), width, STYLE['axes.titlesize']))
        _draw_values(axes, panel, styles, order)
        axes.set_xlim(-0.5, len(order) - 0.5)
        _name_places(axes, order, axis, width)
    found = {
        name: handle
        for axes in figure.axes
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if 'chance' in found:
        found['chance'] = Line2D([], [], **CHANCE)
    names = [name for name in names if name in found]
    figure.legend(
        [found[name] for name in names],
        names,
        loc='outside lower center',
        ncols=across,
    )
    return figure


def _heading(panel: MetricPanel) -> str:
    unit = f' ({panel.unit})' if panel.unit else ''
    arrow = dict(higher=' ↑', lower=' ↓').get(panel.better or '', '')
    return panel.title + unit + arrow


def _name_places(
    axes: Axes, order: Sequence[str | None], axis: str, width: float
) -> None:
    texts = [
        'embed-\nding' if key == 'embedding' else key or stage_label(key)
        for key in order
    ]
    axes.set_xticks(range(len(texts)), texts)
    letters = max(len(part) for text in texts for part in text.split('\n'))
    if len(texts) * (letters + 1) * 0.54 * STYLE['font.size'] / 72 > width:
        axes.tick_params('x', labelrotation=90)
    if order != [None]:
        axes.set_xlabel(axis)


def _draw_values(
    axes: Axes,
    panel: MetricPanel,
    styles: Mapping[str, Mapping[str, Any]],
    order: Sequence[str | None],
) -> None:
    # side by side, so that bars don't hide each other
    step = min(0.12, 0.6 / len(styles))
    chances = {
        value for found in panel.chance.values() for value in found.values()
    }
    ends: list[float] = []
    for i, (network, style) in enumerate(styles.items()):
        shift = step * (i - (len(styles) - 1) / 2)
        found = panel.values.get(network, {})
        places = [x for x, key in enumerate(order) if key in found]
        if not places:
            continue
        means, spreads = np.transpose(
            [summarize_runs(found[order[x]]) for x in places]
        )
        ends += [*(means - spreads), *(means + spreads)]
        axes.errorbar(
            np.array(places) + shift,
            means,
            spreads,
            label=network,
            capsize=2.5,
            markersize=5,
            linewidth=1.4,
            **style,
        )
        chance = panel.chance.get(network, {})
        if len(chances) > 1 and chance:
            ends += chance.values()
            points = [x for x, key in enumerate(order) if key in chance]
            axes.plot(
                np.array(points) + shift,
                [chance[order[x]] for x in points],
                label='chance',
                # a single point has no line
                marker='_' if len(points) == 1 else None,
                **{**CHANCE, 'color': style['color']},
            )
    _fit_height(axes, ends, chances)


def _fit_height(
    axes: Axes, ends: Sequence[float], chances: Collection[float]
) -> None:
    """Fit the y axis to what is drawn, and draw a common chance."""
    ends = [end for end in ends if np.isfinite(end)] or [0.0]
    low, high = min(ends), max(ends)
    size = max(abs(low), abs(high))
    span = high - low
    # of equal values not their rounding
    if span < 1e-3 * size or not span:
        span = 0.02 * size or 1
    room = [0.1, 0.1]
    if len(chances) == 1:
        (chance,) = chances
        if low - NEAR_CHANCE * span <= chance <= high + NEAR_CHANCE * span:
            low, high = min(low, chance), max(high, chance)
            axes.axhline(chance, label='chance', **CHANCE)
        else:
            below = chance < low
            # for a line of text
            room[0 if below else 1] = 0.22
            axes.annotate(
                f'chance: {chance:.3g} {"↓" if below else "↑"}',
                (1, 0 if below else 1),
                (0, 2 if below else -2),
                xycoords='axes fraction',
                textcoords='offset points',
                color=GRAY,
                ha='right',
                va='bottom' if below else 'top',
                fontsize=STYLE['legend.fontsize'],
            )
    span = max(high - low, span)
    axes.set_ylim(low - room[0] * span, high + room[1] * span)
