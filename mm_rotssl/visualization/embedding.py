from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from .style import CLASS_COLORS, CLASS_MARKERS, STYLE, add_title


@rc_context(STYLE)
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
    add_title(figure, title)
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
