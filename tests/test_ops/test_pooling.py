import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from mm_rotssl.models.utils import set_feats
from mm_rotssl.ops import pool_features


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
