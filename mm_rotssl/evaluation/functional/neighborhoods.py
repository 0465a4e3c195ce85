"""Who are an image's neighbors, and would they be the same again?"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import skew
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from .matrix import as_matrix, unit_rows
from .threads import limit_threads


def neighbor_overlap(
    first: torch.Tensor, second: torch.Tensor, k: int = 10
) -> float | None:
    """Share of neighbors that an image has in both sets of features.

    The ``k`` nearest neighbors by cosine similarity of each image are found
    among the others, once in either set; the share of those in common is
    averaged over the images. By chance it is k / (N - 1).

    Source: the mutual nearest-neighbor metric of Huh et al., *The Platonic
    Representation Hypothesis*, ICML 2024 (https://arxiv.org/abs/2405.07987),
    appendix A, where the two sets are of two networks.

    Args:
        first (Tensor): Features (N, C), any float type.
        second (Tensor): Other features of the same images (N, D).
        k (int): Number of neighbors. Defaults to 10.

    Returns:
        float | None: In percent; None if all features of a set point in the
        same direction, so that all images are equally near.

    Raises:
        ValueError: If there are not more than ``k`` images or the numbers of
            images differ. See also `as_matrix`.

    Examples:
        >>> import torch
        >>> first = torch.tensor([[0.0, 1], [1, 4], [4, 1], [1, 0]])
        >>> neighbor_overlap(first, first.flip(1), k=1)
        100.0
    """
    if len(first) != len(second):
        raise ValueError(
            'Both sets must be features of the same images, got '
            f'{len(first)} and {len(second)}.'
        )
    found, other = _find_neighbors(first, k), _find_neighbors(second, k)
    if found is None or other is None:
        return None
    # of k different numbers beside k different numbers, those that come twice
    both = np.sort(np.concatenate([found, other], 1))
    return float(100 * (np.diff(both) == 0).sum() / found.size)


def hubness(feats: torch.Tensor, k: int = 10) -> float | None:
    r"""Skewness of how often images are neighbors of others.

    :math:`E[(N_k - \mu)^3] / \sigma^3`, where :math:`N_k` counts among how
    many images' ``k`` nearest neighbors, by cosine similarity, an image is,
    with mean :math:`\mu` and standard deviation :math:`\sigma`.

    Source: Radovanović, Nanopoulos and Ivanović, *Hubs in Space: Popular
    Nearest Neighbors in High-Dimensional Data*, JMLR 11, 2010.

    Args:
        feats (Tensor): Features (N, C), any float type.
        k (int): Number of neighbors. Defaults to 10.

    Returns:
        float | None: 0 if all are neighbors equally often; None if all
        features point in the same direction.

    Raises:
        ValueError: If there are not more than ``k`` images. See also
            `as_matrix`.
    """
    found = _find_neighbors(feats, k)
    if found is None:
        return None
    times = np.bincount(found.ravel(), minlength=len(found))
    return float(skew(times)) if np.ptp(times) else 0.0


def cluster_stability(
    feats: torch.Tensor, clusters: int = 10, seed: int | Sequence[int] = 0
) -> float | None:
    """Agreement of the clusters that two halves of the images give.

    k-means (the best of 3 starts) is fitted to either half, both fits assign
    all images, and the adjusted Rand index of the two assignments is taken.

    Source: the principle of Lange et al., *Stability-Based Validation of
    Clustering Solutions*, Neural Computation 16, 2004; with the adjusted
    Rand index the agreement by chance is 0 for any number of clusters.

    Args:
        feats (Tensor): Features (N, C), any float type.
        clusters (int): Number of clusters. Defaults to 10.
        seed (int | Sequence[int]): Of the halves and the starts, see
            `draw_labels`. Defaults to 0.

    Returns:
        float | None: In percent, 0 by chance; None if a half has fewer
        different features than clusters.

    Raises:
        ValueError: If a half has fewer images than clusters. See also
            `as_matrix`.
    """
    matrix = as_matrix(feats, 2 * clusters)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(matrix))
    start = int(rng.integers(2**31))
    found = []
    for half in np.array_split(order, 2):
        if len(np.unique(matrix[half], axis=0)) < clusters:
            return None
        kmeans = KMeans(clusters, n_init=3, random_state=start)
        with limit_threads(matrix.size * clusters):
            found.append(kmeans.fit(matrix[half]).predict(matrix))
    return float(100 * adjusted_rand_score(*found))


def _find_neighbors(feats: torch.Tensor, k: int) -> np.ndarray | None:
    """Neighbors among the others, int64 (N, k); None if all are the same."""
    if k < 1:
        raise ValueError(f'k={k} neighbors must be positive.')
    matrix = unit_rows(as_matrix(feats, k + 1))
    if np.ptp(matrix, axis=0).max() < 1e-12:
        return None
    # nearest on the sphere is nearest by cosine
    search = NearestNeighbors(n_neighbors=k, algorithm='brute').fit(matrix)
    return np.asarray(search.kneighbors(return_distance=False))
