import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mm_rotssl.evaluation import average_precision


def naive(scores, present):
    """Both averages by their definitions, recall by recall."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    total = int(present.sum())
    points = []
    for seen in range(1, len(order) + 1):
        hits = sum(bool(present[i]) for i in order[:seen])
        points.append((hits, hits / seen))

    def best(hits):
        return max(p for found, p in points if found >= hits)

    area = sum(best(hits) for hits in range(1, total + 1)) / total
    # 0.3 of 10 are 3
    at = [best(-(-total * tenth // 10)) for tenth in range(11)]
    return 100 * area, 100 * sum(at) / 11


@pytest.mark.parametrize(
    ('count', 'shown'), [(1, 1), (2, 1), (7, 3), (40, 10), (60, 17), (9, 9)]
)
def test_both_averages(count, shown):
    rng = np.random.default_rng(count)
    for _ in range(10):
        present = rng.permutation(np.arange(count) < shown)
        # with ties
        scores = rng.integers(count, size=count).astype(float)
        np.testing.assert_allclose(
            average_precision(scores, present), naive(scores, present)
        )


def test_known_values():
    present = np.array([True, True, False, False])
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    assert average_precision(scores, present) == (100, 100)
    worst = average_precision(-scores, present)
    np.testing.assert_allclose(worst, (50, 50))
    # at a recall of one half 1, behind it 2/3
    mixed = np.array([True, False, True, False])
    np.testing.assert_allclose(
        average_precision(scores, mixed),
        (100 * 5 / 6, 100 * (6 + 5 * 2 / 3) / 11),
    )


def test_not_below_the_average_without_interpolation():
    rng = np.random.default_rng(0)
    scores, present = rng.normal(size=200), rng.random(200) < 0.2
    area, _ = average_precision(scores, present)
    plain = 100 * average_precision_score(present, scores)
    assert plain < area < plain + 5


def test_no_image():
    with pytest.raises(ValueError, match='No image shows'):
        average_precision(np.ones(3), np.zeros(3, bool))
