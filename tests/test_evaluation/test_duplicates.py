import numpy as np
import pytest
import torch

from mm_rotssl.evaluation.functional import nearest_pairs, pixel_correlation


def naive_pairs(queries, reference, k, limit):
    """By loops over pairs, in float64."""
    others = queries if reference is None else reference
    count, size = len(queries[0]), len(others[0])
    similarity = np.zeros((count, size))
    for i in range(count):
        for j in range(size):
            similarity[i, j] = np.mean(
                [
                    np.dot(a[i], b[j])
                    / (np.linalg.norm(a[i]) * np.linalg.norm(b[j]))
                    for a, b in zip(queries, others, strict=True)
                ]
            )
    found = {}
    for i in range(count):
        order = sorted(
            (j for j in range(size) if reference is not None or j != i),
            key=lambda j: -similarity[i, j],
        )
        for j in order[:k]:
            pair = (i, j) if reference is not None else tuple(sorted((i, j)))
            found[pair] = similarity[i, j]
    return [list(p) for p in sorted(found, key=lambda p: -found[p])][:limit]


@pytest.mark.parametrize('within', [True, False])
@pytest.mark.parametrize('chunk_size', [4, 100])
def test_pairs_equal_those_of_loops(within, chunk_size):
    rng = np.random.default_rng(0)
    queries = [rng.normal(size=(11, 3)), rng.normal(size=(11, 5)) * 100]
    reference = None
    if not within:
        reference = [rng.normal(size=(9, 3)), rng.normal(size=(9, 5))]
    for k, limit in ((1, 1000), (3, 1000), (3, 5), (20, 1000)):
        found = nearest_pairs(
            [torch.from_numpy(stage) for stage in queries],
            reference and [torch.from_numpy(stage) for stage in reference],
            k,
            limit,
            chunk_size,
        )
        assert found.tolist() == naive_pairs(queries, reference, k, limit)


def test_a_single_image_has_no_pair():
    assert nearest_pairs([torch.ones(1, 3)]).shape == (0, 2)


def test_correlation_equals_that_of_numpy():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 3, 5, 4)).astype(np.uint8)
    want = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert pixel_correlation(first, second) == pytest.approx(want)
    brighter = (first // 2 + 100).astype(np.int16)
    assert pixel_correlation(first, brighter) > 0.999
    assert pixel_correlation(first, first[:, :2]) == 0
    assert pixel_correlation(first, np.zeros_like(first)) == 0
