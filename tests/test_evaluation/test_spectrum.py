import math

import numpy as np
import pytest
import torch
from scipy.linalg import inv, sqrtm

from mm_rotssl.evaluation import (
    alpha_req,
    dead_channels,
    feature_spread,
    lidar,
    rankme,
)


def entropy_rank(values):
    """The rank of RankMe, equation 1, and of LiDAR, equation 4."""
    total = 0.0
    for value in values:
        share = value / sum(values) + 1e-7
        total -= share * math.log(share)
    return math.exp(total)


@pytest.mark.parametrize('shape', [(40, 7), (7, 40), (5, 1), (1, 5)])
def test_rankme_is_that_of_the_singular_values(shape):
    feats = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1
    matrix = feats.double().numpy()
    gram = matrix.T @ matrix if shape[1] < shape[0] else matrix @ matrix.T
    values = np.sqrt(np.linalg.eigvalsh(gram).clip(0))
    assert rankme(feats) == pytest.approx(entropy_rank(values), rel=1e-6)
    assert rankme(100 * feats) == pytest.approx(rankme(feats))


def test_rankme_of_collapsed_features():
    # the mean counts: all images in one direction are of rank 1
    constant = torch.tensor([[3.0, 4.0]]).repeat(9, 1)
    assert rankme(constant) == pytest.approx(1, abs=1e-5)
    assert rankme(torch.zeros(9, 2)) == 0
    assert rankme(torch.eye(6)[:, :3]) == pytest.approx(3, abs=1e-4)


def with_spectrum(values, images=300, offset=5.0):
    """Features whose covariance has the given eigenvalues, times a factor."""
    rng = np.random.default_rng(0)
    count = len(values)
    centered = rng.normal(size=(images, count))
    left, _ = np.linalg.qr(centered - centered.mean(0))
    right, _ = np.linalg.qr(rng.normal(size=(count, count)))
    # float32 as features are
    return torch.from_numpy(
        left @ np.diag(np.sqrt(values)) @ right.T + offset
    ).float()


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('channels', [20, 64, 130])
def test_alpha_is_the_exponent_of_the_spectrum(alpha, channels):
    feats = with_spectrum(np.arange(1, channels + 1.0) ** -alpha)
    assert alpha_req(feats) == pytest.approx(alpha, abs=1e-3)
    assert alpha_req(0.01 * feats) == pytest.approx(alpha, abs=1e-3)


def test_alpha_is_of_the_range_and_weighted():
    values = np.arange(1, 131.0) ** -1.0
    values[:10] *= 7
    values[100:] /= 3
    assert alpha_req(with_spectrum(values)) == pytest.approx(1, abs=1e-3)
    values[60:] /= 3
    # normal equations of the line with weights 1 / k
    place = np.arange(11, 101.0)
    x, y, w = np.log(place), np.log(values[10:100]), 1 / place
    mean_x, mean_y = (w * x).sum() / w.sum(), (w * y).sum() / w.sum()
    slope = (w * (x - mean_x) * (y - mean_y)).sum()
    slope /= (w * (x - mean_x) ** 2).sum()
    got = alpha_req(with_spectrum(values))
    assert got == pytest.approx(-slope, abs=1e-3)
    assert got != pytest.approx(-np.polyfit(x, y, 1)[0], abs=0.02)


def test_alpha_does_not_count_what_rounding_leaves():
    values = np.zeros(100)
    values[:40] = np.arange(1, 41.0) ** -1.0
    assert alpha_req(with_spectrum(values)) == pytest.approx(1, abs=1e-2)
    # too few are left
    values[19:] = 0
    assert alpha_req(with_spectrum(values)) is None


@pytest.mark.parametrize(
    'feats', [torch.ones(50, 30), torch.zeros(50, 30), torch.randn(50, 19)]
)
def test_no_alpha_without_a_spectrum(feats):
    assert alpha_req(feats) is None


def lidar_by_loops(feats, images, delta):
    feats = feats.double().numpy()
    groups = {}
    for row, image in zip(feats, images.tolist(), strict=True):
        groups.setdefault(image, []).append(row)
    size = feats.shape[1]
    within = np.zeros((size, size))
    means = []
    for rows in groups.values():
        within += np.cov(np.array(rows).T).reshape(size, size) / len(groups)
        means.append(np.mean(rows, 0))
    between = np.cov(np.array(means).T).reshape(size, size)
    root = inv(sqrtm(within + delta * np.eye(size)))
    values = np.linalg.eigvalsh(root @ between @ root).clip(0)
    return entropy_rank(values)


@pytest.mark.parametrize('channels', [1, 6, 40])
@pytest.mark.parametrize('delta', [1e-4, 1.0])
def test_lidar_groups_views_by_image(channels, delta):
    generator = torch.Generator().manual_seed(0)
    # ids with gaps, unequal numbers of views
    images = torch.tensor([7] * 5 + [2] * 2 + [11] * 3 + [5] * 4)
    feats = torch.randn(12, channels, generator=generator)[images]
    feats = feats + 0.3 * torch.randn(feats.shape, generator=generator)
    want = lidar_by_loops(feats, images, delta)
    assert lidar(feats, images, delta) == pytest.approx(want, rel=1e-6)
    order = torch.randperm(len(images), generator=generator)
    got = lidar(feats[order], images[order], delta)
    assert got == pytest.approx(want, rel=1e-6)


def test_lidar_counts_directions_of_images_not_of_views():
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(500).repeat_interleave(10)
    feats = 0.01 * torch.randn(5000, 8, generator=generator)
    # images differ in two channels, views in one of the others
    feats[:, :2] += torch.randn(500, 2, generator=generator)[images]
    feats[:, 2] += torch.randn(5000, generator=generator)
    assert lidar(feats, images) == pytest.approx(2, abs=0.01)
    assert rankme(feats) > 2.8


def test_lidar_of_degenerate_views():
    images = torch.arange(6).repeat(2)
    # views that are all the same: the rank of the images' covariance
    feats = torch.eye(6)[:, :4].repeat(2, 1)
    same = lidar(feats, images)
    values = np.linalg.eigvalsh(np.cov(feats[:6].T.numpy()))
    assert same == pytest.approx(entropy_rank(values), rel=1e-4)
    assert lidar(torch.ones(12, 4), images) == 0
    with pytest.raises(ValueError, match=r'12 views of 12 images, .* 1\.'):
        lidar(feats, torch.arange(12))
    with pytest.raises(ValueError, match='of 1 images'):
        lidar(feats, torch.zeros(12, dtype=torch.long))
    with pytest.raises(ValueError, match='of 6 images'):
        lidar(feats[:5], images)


def test_spread_against_loops():
    feats = torch.rand(9, 5, generator=torch.Generator().manual_seed(0))
    unit = [row / math.sqrt((row @ row).item()) for row in feats.double()]
    stds = []
    for channel in range(5):
        column = [row[channel].item() for row in unit]
        mean = sum(column) / 9
        stds.append(math.sqrt(sum((x - mean) ** 2 for x in column) / 9))
    want = sum(stds) / 5 * math.sqrt(5)
    assert feature_spread(feats) == pytest.approx(want)


def test_spread_is_1_around_the_origin_and_0_after_collapse():
    generator = torch.Generator().manual_seed(0)
    feats = 7 * torch.randn(4000, 32, generator=generator)
    assert feature_spread(feats) == pytest.approx(1, abs=0.01)
    assert feature_spread(feats.abs()) < 0.7
    # lengths do not count
    lengths = torch.linspace(1, 9, 50)[:, None]
    line = lengths * torch.tensor([[1.0, 2.0]])
    assert feature_spread(line) == pytest.approx(0, abs=1e-6)
    assert feature_spread(torch.zeros(5, 3)) == 0
    tiny = 1e-30 * feats
    assert feature_spread(tiny) == pytest.approx(feature_spread(feats))


def test_dead_channels():
    feats = torch.rand(50, 8, generator=torch.Generator().manual_seed(0))
    assert dead_channels(feats) == 0
    feats[:, 0] = 0
    feats[:, 1] = -2.5
    # rounding is no life
    feats[:, 2] = 1000 + 1e-4 * feats[:, 2]
    feats[:, 3] *= 1e-20
    assert dead_channels(feats) == 37.5
    assert dead_channels(torch.zeros(4, 1)) == 100


@pytest.mark.parametrize('function', [rankme, alpha_req, feature_spread])
def test_what_are_no_features(function):
    with pytest.raises(ValueError, match=r'got \(3, 2, 2\)'):
        function(torch.ones(3, 2, 2))
    with pytest.raises(ValueError, match=r'got \(3, 0\)'):
        function(torch.ones(3, 0))
    with pytest.raises(ValueError, match='at least 1 images, got 0'):
        function(torch.ones(0, 3))
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match='NaN or infinite'):
            function(torch.tensor([[1.0, value]]))
