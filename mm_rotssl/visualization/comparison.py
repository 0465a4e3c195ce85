from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from .style import GRAY, SERIES, STYLE, add_title


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
