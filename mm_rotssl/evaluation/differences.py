"""How much two networks differ, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .measurement import Measurement

RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """A difference, with its interval of 95 %.

    Args:
        value (float): Of the means, in the metric's unit.
        low (float, optional): Lower end; None if nothing was repeated.
        high (float, optional): Upper end.
        how (str): What the interval is of.
    """

    value: float
    low: float | None
    high: float | None
    how: str


def compare(
    first: Sequence[Measurement],
    second: Sequence[Measurement],
    seed: int = 0,
) -> Difference:
    """Compare one figure of two entries.

    Where both have several runs, the interval is Welch's over the runs'
    means, which holds for other seeds of training. With a single run of one
    of them it can only tell how the figures would vary with other images:
    the bootstrap over the test images, drawn in pairs (percentile interval of
    2,000 draws; Efron and Tibshirani, *An Introduction to the Bootstrap*,
    1993, chapter 13). Where no image was judged but draws of labels were
    repeated, alike for both, it is Student's over the pairs of draws.

    Args:
        first (Sequence[Measurement]): Of each run of an entry.
        second (Sequence[Measurement]): Of each run of the other, of the same
            protocol, metric and test images.
        seed (int): Of the bootstrap. Defaults to 0.

    Returns:
        Difference: First minus second.
    """
    means = [
        np.array([np.mean(run.values) for run in runs])
        for runs in (first, second)
    ]
    value = float(means[0].mean() - means[1].mean())
    counts = [len(mean) for mean in means]
    if min(counts) > 1:
        interval = stats.ttest_ind(
            *means, equal_var=False
        ).confidence_interval(0.95)
        how = f"Welch's, over {counts[0]} and {counts[1]} runs"
        return Difference(value, interval.low, interval.high, how)
    judged = [
        [run.correct for run in runs if run.correct is not None]
        for runs in (first, second)
    ]
    if [len(runs) for runs in judged] == counts:
        by_image = np.mean(judged[0], 0) - np.mean(judged[1], 0)
        rng = np.random.default_rng(seed)
        size = len(by_image)
        # the unit is percent
        drawn = [
            100 * by_image[rng.integers(size, size=size)].mean()
            for _ in range(RESAMPLES)
        ]
        low, high = np.percentile(drawn, [2.5, 97.5])
        how = f'paired bootstrap over {size} test images'
        return Difference(value, float(low), float(high), how)
    draws = [
        np.mean([run.values for run in runs], 0) for runs in (first, second)
    ]
    if len(draws[0]) == len(draws[1]) > 1:
        interval = stats.ttest_rel(*draws).confidence_interval(0.95)
        how = f"Student's, over {len(draws[0])} pairs of draws"
        return Difference(value, interval.low, interval.high, how)
    return Difference(value, None, None, 'measured once')
