import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from mm_rotssl.models.utils import set_feats
from mm_rotssl.ops import pool_features, pool_to_values


def test_each_kind_of_output():
    maps = torch.randn(2, 3, 4, 5)
    tokens = torch.randn(2, 7, 3)
    vector = torch.randn(2, 6)
    pair = [maps, vector]
    pooled = pool_features((maps, tokens, vector, pair))
    np.testing.assert_allclose(pooled[0], maps.numpy().mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(pooled[1], tokens.numpy().mean(1), atol=1e-6)
    assert torch.equal(pooled[2], vector)
    assert torch.equal(pooled[3], vector)


def test_one_tensor_and_half_precision():
    (pooled,) = pool_features(torch.full((1, 2, 4, 4), 1.5).half())
    assert pooled.dtype == torch.float32
    assert pooled.tolist() == [[1.5, 1.5]]


def test_odd_shape():
    with pytest.raises(ValueError, match=r'\(2, 3, 4, 5, 6\)'):
        pool_features(torch.zeros(2, 3, 4, 5, 6))


def test_feats_of_samples():
    feats = torch.randn(3, 2), torch.randn(3, 5)
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    set_feats(samples, feats)
    for i, sample in enumerate(samples):
        first, second = sample.feats
        assert torch.equal(first, feats[0][i])
        assert torch.equal(second, feats[1][i])
        assert int(sample.gt_label) == i


def test_values_of_the_official_networks():
    """Of RotNet's AlexNet, mmselfsup's ResNet-50, and maps that are small."""
    sizes = {
        (64, 55): 12,
        (192, 27): 7,
        (384, 13): 5,
        (256, 13): 6,
        (256, 56): 6,
        (512, 28): 4,
        (1024, 14): 3,
        (2048, 7): 2,
        # no more cells than there are, and one at least
        (192, 4): 4,
        (50000, 3): 1,
    }
    for (channels, side), cells in sizes.items():
        maps = torch.zeros(1, channels, side, side)
        (found,) = pool_to_values(maps, 9000)
        assert found.shape == (1, channels * cells**2), channels


def test_cells_are_means_by_channel():
    maps = torch.randn(2, 3, 5, 4).half()
    found, tokens, vector = pool_to_values(
        (maps, torch.ones(2, 7, 3), [maps, torch.ones(2, 6)]), 12
    )
    assert found.dtype == torch.float32
    whole = maps.double().numpy()
    # rows and columns of two cells, which may share one in the middle
    for cell, (rows, columns) in enumerate(
        [(r, c) for r in ((0, 3), (2, 5)) for c in ((0, 2), (2, 4))]
    ):
        want = whole[:, :, slice(*rows), slice(*columns)].mean((2, 3))
        np.testing.assert_allclose(
            found.unflatten(1, (3, 4))[:, :, cell], want, atol=1e-6
        )
    assert torch.equal(tokens, torch.ones(2, 3))
    assert torch.equal(vector, torch.ones(2, 6))
