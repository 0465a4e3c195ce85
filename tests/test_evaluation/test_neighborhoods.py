import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from mm_rotssl.evaluation import (
    cluster_stability,
    hubness,
    neighbor_overlap,
)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def neighbors_by_loops(feats, k):
    rows = feats.double().tolist()

    def cosine(x, y):
        product = sum(a * b for a, b in zip(x, y, strict=True))
        return product / math.hypot(*x) / math.hypot(*y)

    return [
        sorted(
            (j for j in range(len(rows)) if j != i),
            key=lambda j: -cosine(rows[i], rows[j]),
        )[:k]
        for i in range(len(rows))
    ]


@pytest.mark.parametrize('k', [1, 4])
def test_overlap_against_loops(k):
    first = draw(30, 4)
    second = torch.cat([first, draw(30, 3, seed=1)], 1)
    pairs = zip(
        neighbors_by_loops(first, k),
        neighbors_by_loops(second, k),
        strict=True,
    )
    shared = sum(len(set(a) & set(b)) for a, b in pairs)
    want = 100 * shared / (30 * k)
    assert 0 < want < 100
    assert neighbor_overlap(first, second, k) == pytest.approx(want)
    assert neighbor_overlap(second, first, k) == pytest.approx(want)


def test_overlap_of_extremes():
    first = draw(400, 8)
    lengths = torch.linspace(1, 9, 400)[:, None]
    assert neighbor_overlap(first, lengths * first) == 100
    unrelated = neighbor_overlap(first, draw(400, 8, seed=1))
    # by chance
    assert unrelated == pytest.approx(100 * 10 / 399, abs=1)
    # an image is no neighbor of itself
    assert neighbor_overlap(first[:11], draw(11, 3)) == 100
    for one in (torch.ones(400, 2) * lengths, torch.zeros(400, 2)):
        assert neighbor_overlap(first, one) is None
        assert neighbor_overlap(one, first) is None


def test_hubness_against_loops():
    feats = draw(60, 30)
    times = [0] * 60
    for found in neighbors_by_loops(feats, 5):
        for j in found:
            times[j] += 1
    mean = sum(times) / 60
    std = math.sqrt(sum((x - mean) ** 2 for x in times) / 60)
    want = sum((x - mean) ** 3 for x in times) / 60 / std**3
    assert hubness(feats, 5) == pytest.approx(want)


def test_hubness_of_extremes():
    angle = torch.arange(40) * 2 * math.pi / 40
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    # two neighbors each, to the left and to the right
    assert hubness(ring.double(), 2) == 0
    # features with a common part: those near it are hubs
    few, many = draw(1000, 3), draw(1000, 300)
    assert hubness(many + 0.3) > 1 > hubness(few)
    assert hubness(torch.ones(30, 4)) is None
    for function in (hubness, lambda x: neighbor_overlap(x, x)):
        with pytest.raises(ValueError, match='at least 11 images, got 10'):
            function(draw(10, 3))
    with pytest.raises(ValueError, match='k=0'):
        hubness(ring, 0)
    with pytest.raises(ValueError, match='got 40 and 39'):
        neighbor_overlap(ring, ring[1:])


def test_stability_is_the_agreement_of_two_halves():
    feats = draw(41, 3)
    rng = np.random.default_rng((3, 1))
    order = rng.permutation(41)
    start = int(rng.integers(2**31))
    first, second = (
        KMeans(4, n_init=3, random_state=start)
        .fit(feats[half].double().numpy())
        .predict(feats.double().numpy())
        for half in (order[:21], order[21:])
    )
    want = 100 * adjusted_rand_score(first, second)
    assert cluster_stability(feats, 4, (3, 1)) == pytest.approx(want)
    assert cluster_stability(feats, 4, (3, 2)) != pytest.approx(want)


def test_stability_of_extremes():
    islands = 50 * draw(4, 6)[torch.arange(200) % 4] + draw(200, 6, seed=1)
    assert cluster_stability(islands, 4) == 100
    assert cluster_stability(draw(400, 50), 10) < 30
    assert cluster_stability(torch.ones(60, 3), 2) is None
    assert cluster_stability(torch.eye(4).repeat(20, 1), 5) is None
    with pytest.raises(ValueError, match='at least 20 images, got 19'):
        cluster_stability(draw(19, 3))
