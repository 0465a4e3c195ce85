"""What protocols give: figures, and what has to be known to read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A kind of figure.

    Args:
        title (str): Heading of a column.
        about (str): The formula, its source, and what it can and can't tell;
            a few sentences, shown in reports.
        unit (str): Such as '%'. Defaults to '', a plain number.
        better ('higher' | 'lower', optional): Defaults to None, neither.
    """

    title: str
    about: str
    unit: str = ''
    better: Literal['higher', 'lower'] | None = None


@dataclass(frozen=True)
class Measurement:
    """A figure of one network.

    Args:
        metric (str): Key among the protocol's ``metrics``.
        stage (str, optional): Name of the stage, or 'embedding'; None: of
            the whole network.
        values (Sequence[float]): One a draw (of labels, of random starts).
        chance (float, optional): What guessing gives. Defaults to None.
        correct (ndarray, optional): float32 (N,), for each test image the
            share of draws in which it was judged right, for intervals of
            differences. Defaults to None.
    """

    metric: str
    stage: str | None
    values: Sequence[float]
    chance: float | None = None
    correct: np.ndarray | None = None
