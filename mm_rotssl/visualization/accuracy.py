from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mm_rotssl.evaluation.functional import mean_and_std

from .style import GRAY, SERIES, STYLE, add_title


@rc_context(STYLE)
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
    add_title(figure, title)
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


@rc_context(STYLE)
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
    add_title(figure, title)
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
    # the panels share their y axis
    line[0].set_yticks(range(len(rows)), rows)
    line[0].set_ylim(len(rows) - 0.5, -0.5)
    handles, labels = line[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4)
    return figure
