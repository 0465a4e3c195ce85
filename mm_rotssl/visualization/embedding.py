from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from .style import (
    CLASS_COLORS,
    CLASS_MARKERS,
    STYLE,
    WIDTH,
    add_title,
    legend_columns,
    wrap,
)

# of more groups none is named
MAX_NAMED = 12


@rc_context(STYLE)
def plot_embedding(
    embeddings: Mapping[str, np.ndarray],
    groups: np.ndarray,
    names: Sequence[str],
    title: str = 'Embedding',
) -> Figure:
    """Draw features that were embedded in the plane.

    Args:
        embeddings (Mapping[str, ndarray]): Title of a panel -> positions
            (N, 2), whose scale and orientation carry no meaning.
        groups (ndarray): Class or cluster of each point, int (N,), from 0.
        names (Sequence[str]): Name of each group.
        title (str): Headline. Defaults to 'Embedding'.

    Returns:
        Figure: A panel each. Names of one letter are drawn in place of
        points; else color and marker tell the group, and, if there are at
        most twelve, a legend below its name.
    """
    present = np.unique(groups).tolist()
    letters = all(len(names[group]) == 1 for group in present)
    named = len(present) <= MAX_NAMED and not letters
    across = legend_columns([names[group] for group in present], WIDTH)
    columns = min(2, len(embeddings))
    rows = -(-len(embeddings) // columns)
    side = WIDTH / columns
    legend = 0.2 * -(-len(present) // across) + 0.2 if named else 0
    figure = Figure(
        (WIDTH, 0.5 + rows * 0.95 * side + legend), layout='constrained'
    )
    add_title(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(embeddings) :]:
        axes.remove()
    # the more points, the smaller
    count = len(groups)
    area = float(np.clip(15000 / count * side / WIDTH, 5, 24))
    if letters:
        area = float(np.clip(40000 / count * side / WIDTH, 14, 40))
    for axes, (name, points) in zip(grid, embeddings.items(), strict=False):
        axes.set_title(wrap(name, side - 0.3, STYLE['axes.titlesize']))
        axes.set_aspect('equal', adjustable='datalim')
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(visible=True, color='#CCCCCC')
        axes.margins(0.03)
        for group in present:
            axes.scatter(
                *points[groups == group].T,
                s=area,
                color=CLASS_COLORS[group % len(CLASS_COLORS)],
                marker=rf'$\mathbf{{{names[group]}}}$'
                if letters
                else CLASS_MARKERS[group % len(CLASS_MARKERS)],
                edgecolors='none' if letters else 'white',
                linewidths=0.3,
                label=names[group],
                # thousands of outlines would make a file of megabytes
                rasterized=True,
            )
    if named:
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(),
            loc='outside lower center',
            ncols=across,
            markerscale=(30 / area) ** 0.5,
        )
    return figure
