"""Differences of two entries, with intervals."""

import numpy as np
import pytest
from scipy import stats

from mm_rotssl.evaluation.differences import compare
from mm_rotssl.evaluation.measurement import Measurement


def judged(correct):
    correct = np.asarray(correct, np.float32)
    return Measurement('a', None, [100 * correct.mean()], correct=correct)


def test_bootstrap_is_over_pairs_of_images():
    """As wide as the theory says of the mean of paired differences."""
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.5
    first = np.where(hard, rng.random(400) < 0.9, 0.0)
    second = np.where(hard, rng.random(400) < 0.7, 0.0)
    found = compare([judged(first)], [judged(second)])
    by_image = 100 * (first - second)
    assert found.value == pytest.approx(by_image.mean(), abs=1e-4)
    half = 1.96 * by_image.std() / 400**0.5
    assert found.low == pytest.approx(by_image.mean() - half, abs=0.35)
    assert found.high == pytest.approx(by_image.mean() + half, abs=0.35)
    # images drawn apart would give a wider one
    apart = 196 * (first.var() / 400 + second.var() / 400) ** 0.5
    assert half < 0.8 * apart
    assert found.how == 'paired bootstrap over 400 test images'
    # the same again, and no interval of nothing
    assert compare([judged(first)], [judged(second)]) == found
    same = compare([judged(first)], [judged(first)])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_runs_are_averaged_by_image():
    runs = [judged([1, 0, 1, 0]), judged([0, 1, 0, 1])]
    found = compare(runs, [judged([0.5] * 4)])
    # their average is right half the time on each
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_several_runs_of_both():
    first = [Measurement('a', None, values) for values in ([50, 52], [55, 57])]
    second = [Measurement('a', None, [v]) for v in (40.0, 41.0, 45.0)]
    found = compare(first, second)
    assert found.value == pytest.approx(53.5 - 42)
    a, b = np.array([51, 56.0]), np.array([40, 41, 45.0])
    va, vb = a.var(ddof=1) / 2, b.var(ddof=1) / 3
    freedom = (va + vb) ** 2 / (va**2 / 1 + vb**2 / 2)
    half = stats.t.ppf(0.975, freedom) * (va + vb) ** 0.5
    assert found.low == pytest.approx(11.5 - half)
    assert found.high == pytest.approx(11.5 + half)
    assert found.how == "Welch's, over 2 and 3 runs"


def test_draws_are_paired():
    first, second = [60, 62, 70.0], [50, 53, 58.0]
    found = compare(
        [Measurement('a', None, first)], [Measurement('a', None, second)]
    )
    gaps = np.subtract(first, second)
    half = stats.t.ppf(0.975, 2) * gaps.std(ddof=1) / 3**0.5
    assert found.low == pytest.approx(gaps.mean() - half)
    assert found.high == pytest.approx(gaps.mean() + half)
    assert found.how == "Student's, over 3 pairs of draws"


def test_measured_once():
    found = compare(
        [Measurement('a', None, [3.0])], [Measurement('a', None, [1.0])]
    )
    assert (found.value, found.low, found.how) == (2, None, 'measured once')
