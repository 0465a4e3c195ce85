"""Of how many dimensions is the manifold that features lie on?"""

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.neighbors import NearestNeighbors

from .matrix import as_matrix

# 10 % of fewer points make no tree
FEWEST_POINTS = 20
# subsets of each size
DRAWS = 5


def two_nn_dimension(
    feats: torch.Tensor, discard: float = 0.1
) -> float | None:
    r"""Intrinsic dimension from the distances to two neighbors.

    With :math:`\mu_i = r_2 / r_1`, the ratio of the Euclidean distances to
    the second and the first neighbor, sorted, the dimension is the slope of
    the line through the origin, by least squares, of
    :math:`-\ln(1 - i / N)` against :math:`\ln \mu_i`; the largest ratios,
    ``discard`` of all, are left out. Features that occur several times count
    once.

    Source: Facco et al., *Estimating the Intrinsic Dimension of Datasets by
    a Minimal Neighborhood Information*, Scientific Reports 7, 2017
    (https://arxiv.org/abs/1803.06992).

    Args:
        feats (Tensor): Features (N, C), any float type.
        discard (float): Share of the ratios. Defaults to 0.1, as in the
            paper.

    Returns:
        float | None: The dimension; 0 if fewer than 3 features are
        different; None if each has two neighbors at the same distance.

    Raises:
        ValueError: If there are fewer than 3 images. See also `as_matrix`.
    """
    points = np.unique(as_matrix(feats, 3), axis=0)
    count = len(points)
    if count < 3:
        return 0.0
    search = NearestNeighbors(n_neighbors=2, algorithm='brute').fit(points)
    found = search.kneighbors(return_distance=False)
    # the search rounds; small distances need to be exact
    distances = np.stack(
        [np.linalg.norm(points - points[found[:, i]], axis=1) for i in (0, 1)]
    )
    ratios = np.sort(np.log(distances[1] / distances[0]))
    # the last of all would be at an infinite height
    kept = min(round((1 - discard) * count), count - 1)
    ratios = ratios[:kept]
    heights = -np.log1p(-np.arange(1, kept + 1) / count)
    # of equal distances float32 makes such ratios
    if ratios[-1] < 1e-6:
        return None
    return float(ratios @ heights / (ratios @ ratios))


def mst_dimension(feats: torch.Tensor, seed: int = 0) -> float | None:
    r"""Intrinsic dimension from the lengths of minimum spanning trees.

    The length :math:`L` of the minimum spanning tree of :math:`n` points on
    a manifold of :math:`d` dimensions grows as :math:`n^{(d - 1) / d}`.
    :math:`d = 1 / (1 - m)` with the slope :math:`m` of the line through
    :math:`(\ln n, \ln L)`, by least squares, over :math:`n` of 10 %, 20 %,
    ... of the features and all of them; :math:`L` is the mean of five random
    subsets of each size. Features that occur several times count once.

    Source: Mordacq, Kalogeiton and Oudot, *IdEst: Assessing Self-Supervised
    Learning Representations via Intrinsic Dimension*, 2026
    (https://arxiv.org/abs/2606.03338), algorithm 1, after Costa and Hero,
    2006. It leaves the sizes open; more than one subset of each makes the
    estimate steadier.

    Args:
        feats (Tensor): Features (N, C), any float type; N * N distances are
            in memory at once.
        seed (int): Of the subsets. Defaults to 0.

    Returns:
        float | None: The dimension; 0 if fewer than 20 features are
        different; None if the length grows as fast as the number of points
        or faster, which is that of no dimension.

    Raises:
        ValueError: If there are fewer than 20 images. See also `as_matrix`.
    """
    points = np.unique(as_matrix(feats, FEWEST_POINTS), axis=0)
    count = len(points)
    if count < FEWEST_POINTS:
        return 0.0
    distances = squareform(pdist(points))
    rng = np.random.default_rng(seed)
    sizes = np.linspace(count / 10, count, 10).round().astype(int)
    lengths = np.zeros(len(sizes))
    for i, size in enumerate(sizes):
        # of all there is only one subset
        draws = DRAWS if size < count else 1
        for _ in range(draws):
            chosen = rng.permutation(count)[:size]
            part = squareform(distances[np.ix_(chosen, chosen)], checks=False)
            # the steps of single linkage are the edges of the tree
            lengths[i] += linkage(part, 'single')[:, 2].sum() / draws
    slope, _ = np.polyfit(np.log(sizes), np.log(lengths), 1)
    return float(1 / (1 - slope)) if slope < 1 else None
