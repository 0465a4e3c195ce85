import math

import pytest
import torch

from mm_rotssl.evaluation import (
    alignment,
    mean_cosine,
    mean_cosine_of_others,
    uniformity,
)


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    return (
        3 * torch.randn(13, 5, generator=generator) + 1,
        torch.randn(13, 5, generator=generator),
    )


def unit(feats):
    return [
        [x / math.sqrt(sum(y * y for y in row)) for x in row]
        for row in feats.tolist()
    ]


def squared(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def test_alignment_against_loops(views):
    first, second = map(unit, views)
    want = sum(map(squared, first, second)) / 13
    assert alignment(*views) == pytest.approx(want)
    assert alignment(views[0], 5 * views[0]) == pytest.approx(0, abs=1e-12)
    assert alignment(views[0], -views[0]) == pytest.approx(4)


@pytest.mark.parametrize('chunk_size', [1, 5, 4096])
def test_uniformity_against_loops(views, chunk_size):
    first = unit(views[0])
    potentials = [
        math.exp(-2 * squared(first[i], first[j]))
        for i in range(13)
        for j in range(i)
    ]
    want = math.log(sum(potentials) / len(potentials))
    assert uniformity(views[0], chunk_size) == pytest.approx(want, rel=1e-9)


def test_uniformity_of_extremes():
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.zeros(9, 4)) == 0
    assert uniformity(torch.tensor([[2.0], [-3.0]])) == pytest.approx(-8)
    feats = torch.randn(800, 400, generator=torch.Generator().manual_seed(0))
    # all pairs nearly at a right angle
    assert uniformity(feats) == pytest.approx(-4, abs=0.05)
    with pytest.raises(ValueError, match='at least 2 images, got 1'):
        uniformity(torch.ones(1, 4))


def test_cosines_against_loops(views):
    first, second = map(unit, views)
    table = [
        [sum(a * b for a, b in zip(x, y, strict=True)) for y in second]
        for x in first
    ]
    same = [table[i][i] for i in range(13)]
    others = [table[i][j] for i in range(13) for j in range(13) if i != j]
    assert mean_cosine(*views) == pytest.approx(sum(same) / 13)
    want = sum(others) / len(others)
    assert mean_cosine_of_others(*views) == pytest.approx(want)
    # the squared distance of others is known from it
    assert alignment(*views) == pytest.approx(2 - 2 * sum(same) / 13)


def test_vectors_of_zeros_and_other_shapes():
    zeros = torch.zeros(3, 2)
    assert mean_cosine(zeros, torch.ones(3, 2)) == 0
    assert mean_cosine_of_others(zeros, zeros) == 0
    for function in (alignment, mean_cosine, mean_cosine_of_others):
        with pytest.raises(ValueError, match=r'\(3, 2\) and \(2, 2\)'):
            function(zeros, zeros[:2])
    with pytest.raises(ValueError, match='at least 2 images, got 1'):
        mean_cosine_of_others(zeros[:1], zeros[:1])
