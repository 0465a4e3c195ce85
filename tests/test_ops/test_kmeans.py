"""k-means, whitening and the Sobel filter, against scikit-learn and loops."""

from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import run_on_two
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from mm_rotssl.ops import kmeans, sobel, whiten


def blobs(rows=200, seed=0, channels=5):
    generator = torch.Generator().manual_seed(seed)
    centers = 4 * torch.randn(8, channels, generator=generator)
    noise = torch.randn(rows, channels, generator=generator)
    return centers[torch.arange(rows) % 8] + noise


def test_as_scikit_learn():
    """From the same start, until nothing changes."""
    rows = blobs()
    labels, centroids = kmeans(rows, rows[:6], 50)
    want = KMeans(6, init=rows[:6].numpy(), n_init=1, max_iter=50, tol=0).fit(
        rows.numpy()
    )
    assert labels.tolist() == want.labels_.tolist()
    np.testing.assert_allclose(
        centroids, want.cluster_centers_, rtol=1e-4, atol=1e-5
    )


def lloyd(rows, centroids, iterations, spherical):
    """In float64, a row and a centroid at a time."""
    rows, centroids = rows.double().numpy(), centroids.double().numpy().copy()

    def nearest(row):
        if spherical:
            scores = [-row @ c for c in centroids]
        else:
            scores = [((row - c) ** 2).sum() for c in centroids]
        return int(np.argmin(scores))

    for _ in range(iterations):
        members = [[] for _ in centroids]
        for row in rows:
            members[nearest(row)].append(row)
        assert all(members)
        for k, own in enumerate(members):
            centroids[k] = np.mean(own, 0)
            if spherical:
                centroids[k] /= np.linalg.norm(centroids[k])
    return [nearest(row) for row in rows], centroids


@pytest.mark.parametrize('spherical', [False, True])
@pytest.mark.parametrize('iterations', [0, 1, 4])
def test_as_a_loop(spherical, iterations, monkeypatch):
    monkeypatch.setattr(import_module('mm_rotssl.ops.kmeans'), 'CHUNK_ROWS', 7)
    rows = F.normalize(blobs(60), dim=1)
    labels, centroids = kmeans(rows, rows[:5], iterations, spherical)
    want, want_centroids = lloyd(rows, rows[:5], iterations, spherical)
    assert labels.tolist() == want
    np.testing.assert_allclose(centroids, want_centroids, atol=1e-5)
    assert centroids.dtype == torch.float32


def test_an_empty_cluster_gets_half_of_the_largest():
    rows = blobs(80)
    start = torch.cat([rows[:3], torch.full((2, 5), 1e4)])
    labels, _ = kmeans(rows, start, 20)
    counts = labels.bincount(minlength=5)
    assert (counts > 0).all()
    # with one iteration it is halved, no more
    _, centroids = kmeans(rows, start, 1)
    first, _ = kmeans(rows, start[:3], 0)
    largest = int(first.bincount().argmax())
    mean = rows[first == largest].mean(0)
    signs = torch.tensor([1, -1, 1, -1, 1])
    halves = [mean * (1 - signs / 1024), mean * (1 + signs / 1024)]
    torch.testing.assert_close(
        centroids[[largest, 3]], torch.stack(halves), rtol=1e-5, atol=1e-5
    )


def test_fewer_different_rows_than_clusters():
    rows = blobs(20).repeat(5, 1)
    labels, centroids = kmeans(rows, rows[:100], 20)
    assert len(labels.unique()) <= 20
    assert centroids.isfinite().all()
    # the same rows are together
    assert torch.equal(labels[:20].repeat(5), labels)


def test_what_is_no_input():
    with pytest.raises(ValueError, match=r'\(3, 2\) and \(2, 4\)'):
        kmeans(torch.zeros(3, 2), torch.zeros(2, 4))
    with pytest.raises(ValueError, match='diverged'):
        kmeans(torch.full((3, 2), torch.nan), torch.zeros(2, 2))


def in_parts(rank):
    rows = blobs()
    # none on one process
    own = [rows[:77], rows[77:]][rank]
    none = [rows[:0], rows][rank]
    return dict(
        kmeans=kmeans(own, rows[:6], 9),
        none=kmeans(none, rows[:6], 9),
        spherical=kmeans(
            F.normalize(own, dim=1), F.normalize(rows[:6], dim=1), 9, True
        ),
        whiten=whiten(own, 3),
    )


def test_two_processes():
    rows = blobs()
    ranks = run_on_two(in_parts)
    unit = F.normalize(rows, dim=1)
    for key, want in (
        ('kmeans', kmeans(rows, rows[:6], 9)),
        ('none', kmeans(rows, rows[:6], 9)),
        ('spherical', kmeans(unit, unit[:6], 9, True)),
    ):
        labels, centroids = zip(*(found[key] for found in ranks), strict=True)
        assert torch.equal(torch.cat(labels), want[0]), key
        assert torch.equal(*centroids), key
        torch.testing.assert_close(centroids[0], want[1])
    torch.testing.assert_close(
        torch.cat([found['whiten'] for found in ranks]).abs(),
        whiten(rows, 3).abs(),
    )


@pytest.mark.parametrize('channels', [1, 4, 7])
def test_whitening(channels, monkeypatch):
    module = import_module('mm_rotssl.ops.whitening')
    monkeypatch.setattr(module, 'CHUNK_ROWS', 30)
    mixed = blobs(100, channels=7) @ blobs(7, 1, channels=7) + 5
    found = whiten(mixed, channels)
    want = PCA(channels, whiten=True, svd_solver='full').fit_transform(
        mixed.double().numpy()
    )
    # the signs of components are arbitrary
    signs = np.sign((found.numpy() * want).sum(0))
    np.testing.assert_allclose(found * signs, want, rtol=1e-3, atol=1e-4)


def test_directions_without_variance():
    flat = blobs(50, channels=4)
    flat[:, 3] = flat[:, 0] + flat[:, 1]
    found = whiten(flat, 4)
    assert found.isfinite().all()
    assert not found[:, 3].any()
    with pytest.raises(ValueError, match=r'Rows of 4 .* 5 principal'):
        whiten(flat, 5)


def test_sobel():
    images = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    found = sobel(images)
    gray = images.mean(1).numpy()
    padded = np.pad(gray, ((0, 0), (1, 1), (1, 1)))
    kernels = [
        [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
        [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
    ]
    for c, kernel in enumerate(kernels):
        for y in range(6):
            for x in range(5):
                window = padded[:, y : y + 3, x : x + 3]
                np.testing.assert_allclose(
                    found[:, c, y, x], (window * kernel).sum((1, 2))
                )
    # of a constant image nothing is left but its border
    flat = sobel(torch.full((1, 3, 5, 5), 7.0))
    assert not flat[..., 1:-1, 1:-1].any()
    assert flat[..., 0, :].any()
