from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from .style import BLUE, STYLE, WIDTH, add_title, wrap

# of more classes the rows are not named, and the numbers not written
MAX_NAMED = 20
MAX_WRITTEN = 12
NUM_LISTED = 12


@rc_context(STYLE)
def plot_confusion(
    counts: np.ndarray,
    classes: Sequence[str],
    title: str = 'Confusion matrix',
) -> Figure:
    """Draw which classes are taken for which.

    Args:
        counts (ndarray): Images of each class (row) that were taken for
            each class (column), int (C, C).
        classes (Sequence[str]): Name of each class, C of them.
        title (str): Headline. Defaults to 'Confusion matrix'.

    Returns:
        Figure: The matrix in percent of each row. Up to twelve classes the
        numbers are written, up to twenty the classes named; of more, bars
        below it list the most frequent confusions.
    """
    totals = counts.sum(1, keepdims=True)
    shares = 100 * counts / np.maximum(totals, 1)
    number = len(classes)
    named = number <= MAX_NAMED
    listed = [] if named else _confusions(shares, classes)
    below = 0.65 + 0.22 * len(listed) if listed else 0.0
    height = 0.95 * WIDTH
    figure = Figure((WIDTH, height + below), layout='constrained')
    add_title(figure, title)
    # parts of their own, so that long names move one alone
    parts = figure.subfigures(
        1 + bool(listed),
        1,
        squeeze=False,
        height_ratios=[height, *([below] if listed else [])],
    )[:, 0]
    upper = parts[0].subplots()
    upper.grid(visible=False)
    # of many classes each takes few of another: small shares are drawn darker
    norm = PowerNorm(1 if named else 0.5, vmin=0, vmax=100)
    image = upper.imshow(shares, cmap='Blues', norm=norm)
    if number > MAX_WRITTEN:
        parts[0].colorbar(
            image, ax=upper, shrink=0.7, label='% of the true class'
        )
    upper.set_ylabel('true class')
    upper.set_xlabel('predicted class')
    if named:
        size = 10 if number <= MAX_WRITTEN else 8
        names = [wrap(name, 1.2, size) for name in classes]
        upright = max(map(len, classes)) > 3
        upper.set_yticks(range(number), names, fontsize=size)
        upper.set_xticks(
            range(number), names, fontsize=size, rotation=90 if upright else 0
        )
    for i, j in np.ndindex(shares.shape if number <= MAX_WRITTEN else (0, 0)):
        if counts[i, j]:
            upper.text(
                j,
                i,
                f'{shares[i, j]:.0f}',
                ha='center',
                va='center',
                fontsize=9,
                color='white' if shares[i, j] > 60 else '#222222',
            )
    for axes in [part.subplots() for part in parts[1:]]:
        axes.set_title('Most frequent confusions (% of the true class)')
        axes.barh(
            range(len(listed)), [share for _, share in listed], color=BLUE
        )
        axes.set_yticks(range(len(listed)), [name for name, _ in listed])
        axes.invert_yaxis()
        axes.grid(visible=False, axis='y')
    return figure


def _confusions(
    shares: np.ndarray, classes: Sequence[str]
) -> list[tuple[str, float]]:
    """The largest shares beside the diagonal, largest first."""
    wrong = shares * (1 - np.eye(len(shares)))
    order = np.argsort(-wrong, axis=None, kind='stable')[:NUM_LISTED]
    return [
        (f'{classes[i]} as {classes[j]}', float(wrong[i, j]))
        for i, j in zip(
            *np.unravel_index(order, wrong.shape),
            strict=True,
        )
        if wrong[i, j] > 0
    ]
