import math

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from mm_rotssl.evaluation import mst_dimension, two_nn_dimension


def embed(points, channels=24):
    """Points in some directions of a larger space, float32."""
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(channels, channels)))
    return torch.from_numpy(points @ basis[: points.shape[1]] + 3).float()


def gaussian(dimension, images=1000):
    return embed(np.random.default_rng(0).normal(size=(images, dimension)))


@pytest.mark.parametrize('dimension', [1, 2, 5, 10])
def test_dimension_of_gaussians(dimension):
    feats = gaussian(dimension)
    close = pytest.approx(dimension, rel=0.1)
    assert two_nn_dimension(feats) == close
    # tails make it too high in few dimensions
    assert mst_dimension(feats) == pytest.approx(dimension, rel=0.25)


def test_dimension_of_curves_and_surfaces():
    rng = np.random.default_rng(0)
    angle, height = rng.uniform(0, 9, 1000), rng.uniform(0, 5, 1000)
    helix = embed(np.stack([np.cos(angle), np.sin(angle), angle], 1))
    roll = embed(np.stack([angle * np.cos(angle), height], 1))
    for function in (two_nn_dimension, mst_dimension):
        assert function(helix) == pytest.approx(1, abs=0.1)
        assert function(roll) == pytest.approx(2, abs=0.2)


def two_nn_by_loops(points, discard):
    points = np.unique(points.double().numpy(), axis=0)
    ratios = []
    for i, point in enumerate(points):
        distances = sorted(
            math.dist(point, other) for j, other in enumerate(points) if i != j
        )
        ratios.append(distances[1] / distances[0])
    ratios.sort()
    count = len(points)
    over = under = 0.0
    for i, ratio in enumerate(ratios[: round((1 - discard) * count)], 1):
        over += -math.log(1 - i / count) * math.log(ratio)
        under += math.log(ratio) ** 2
    return over / under


@pytest.mark.parametrize('discard', [0.1, 0.5])
def test_two_nn_against_loops(discard):
    feats = gaussian(3, 60)
    got = two_nn_dimension(feats, discard)
    assert got == pytest.approx(two_nn_by_loops(feats, discard), rel=1e-9)
    assert two_nn_dimension(100 * feats, discard) == pytest.approx(got)


def test_two_nn_with_copies_and_near_copies():
    feats = gaussian(3, 60)
    copies = torch.cat([feats, feats[:30], feats[:7]])
    assert two_nn_dimension(copies) == pytest.approx(two_nn_dimension(feats))
    # as a batch of another size gives them
    near = torch.cat([feats, feats[:4] * (1 + 2e-7)])
    want = two_nn_by_loops(near, 0.1)
    assert two_nn_dimension(near) == pytest.approx(want, rel=1e-9)
    # no ratio is left out: the last has no height
    assert math.isfinite(two_nn_dimension(feats, 0.0))


def test_two_nn_of_degenerate_features():
    assert two_nn_dimension(torch.ones(30, 4)) == 0
    assert two_nn_dimension(torch.eye(2).repeat(9, 1)) == 0
    assert two_nn_dimension(torch.eye(12)) is None
    # but for rounding
    assert two_nn_dimension(embed(np.eye(12))) is None
    assert two_nn_dimension(torch.tensor([[0.0], [1.0], [3.0]])) > 0
    with pytest.raises(ValueError, match='at least 3 images, got 2'):
        two_nn_dimension(torch.ones(2, 4))


def mst_by_another_tree(points, seed):
    points = np.unique(points.double().numpy(), axis=0)
    distances = cdist(points, points)
    rng = np.random.default_rng(seed)
    count = len(points)
    sizes, lengths = [], []
    for tenth in range(1, 11):
        size = round(tenth * count / 10)
        trees = []
        for _ in range(5 if tenth < 10 else 1):
            chosen = rng.permutation(count)[:size]
            tree = minimum_spanning_tree(distances[chosen][:, chosen])
            assert tree.nnz == size - 1
            trees.append(tree.sum())
        sizes.append(math.log(size))
        lengths.append(math.log(sum(trees) / len(trees)))
    design = np.stack([sizes, np.ones(10)], 1)
    slope = np.linalg.lstsq(design, np.array(lengths), rcond=None)[0][0]
    return 1 / (1 - slope)


def test_mst_against_another_tree():
    feats = gaussian(3, 80)
    want = mst_by_another_tree(feats, 4)
    assert mst_dimension(feats, 4) == pytest.approx(want, rel=1e-6)
    assert mst_dimension(feats, 4) == mst_dimension(feats, 4)
    assert mst_dimension(feats, 5) != mst_dimension(feats, 4)
    copies = torch.cat([feats, feats[:30]])
    assert mst_dimension(copies, 4) == pytest.approx(want, rel=1e-6)


def test_mst_of_degenerate_features():
    assert mst_dimension(torch.ones(30, 4)) == 0
    assert mst_dimension(torch.eye(19).repeat(3, 1)) == 0
    # all edges are equally long: the length grows as the number of points
    assert mst_dimension(torch.eye(40)) is None
    # one channel
    line = torch.arange(200.0)[:, None]
    assert mst_dimension(line) == pytest.approx(1, abs=0.1)
    with pytest.raises(ValueError, match='at least 20 images, got 19'):
        mst_dimension(torch.ones(19, 4))
