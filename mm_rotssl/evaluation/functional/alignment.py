"""Alignment of two views, uniformity on the sphere, cosine similarity.

Source: Wang and Isola, *Understanding Contrastive Representation Learning
through Alignment and Uniformity on the Hypersphere*, ICML 2020
(https://arxiv.org/abs/2005.10242), section 4.1.
"""

import math

import numpy as np
import torch

from .matrix import as_matrix, unit_rows


def alignment(first: torch.Tensor, second: torch.Tensor) -> float:
    r"""Mean squared distance of the two views of an image.

    :math:`\frac{1}{N} \sum_i \|x_i - y_i\|^2`, the authors'
    :math:`\mathcal{L}_\text{align}` with :math:`\alpha = 2`, of features
    that are scaled to length 1.

    Args:
        first (Tensor): Features of a view of each image (N, C), any float
            type.
        second (Tensor): Features of another view (N, C).

    Returns:
        float: From 0, the same, to 4.

    Raises:
        ValueError: If the shapes differ. See also `as_matrix`.
    """
    left, right = _pairs(first, second)
    return float(((left - right) ** 2).sum(1).mean())


def uniformity(feats: torch.Tensor, chunk_size: int = 4096) -> float:
    r"""How evenly features are spread over the sphere.

    :math:`\ln \frac{1}{P} \sum_{i < j} e^{-2 \|x_i - x_j\|^2}` over all
    :math:`P` pairs, the authors' :math:`\mathcal{L}_\text{uniform}` with
    :math:`t = 2`, of features that are scaled to length 1.

    Args:
        feats (Tensor): Features (N, C), any float type.
        chunk_size (int): At most ``chunk_size`` * N distances are in memory
            at a time. Defaults to 4096.

    Returns:
        float: From -8 to 0, all the same; about -4 for features that are
        spread evenly in many dimensions.

    Raises:
        ValueError: If there are fewer than 2 images. See also `as_matrix`.
    """
    matrix = unit_rows(as_matrix(feats, 2))
    count = len(matrix)
    squares = (matrix**2).sum(1)
    total = 0.0
    for start in range(0, count, chunk_size):
        part = slice(start, start + chunk_size)
        distances = squares[part, None] + squares - 2 * matrix[part] @ matrix.T
        total += np.exp(-2 * distances).sum()
    # each pair came twice, and each vector with itself
    return math.log((total - count) / (count * (count - 1)))


def mean_cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean cosine similarity of the two versions of an image.

    Args:
        first (Tensor): Features of a version of each image (N, C), any float
            type.
        second (Tensor): Features of another version (N, C).

    Returns:
        float: From -1 to 1; with a vector of zeros the similarity is 0.

    Raises:
        ValueError: If the shapes differ. See also `as_matrix`.
    """
    left, right = _pairs(first, second)
    return float((left * right).sum(1).mean())


def mean_cosine_of_others(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean cosine similarity of versions of different images.

    What `mean_cosine` has to be compared with: features that are never
    negative are similar whatever they are of.

    Args:
        first (Tensor): Features of a version of each image (N, C), any float
            type.
        second (Tensor): Features of another version (N, C).

    Returns:
        float: Of all images i in ``first`` and j ≠ i in ``second``.

    Raises:
        ValueError: If there are fewer than 2 images or the shapes differ.
            See also `as_matrix`.
    """
    left, right = _pairs(first, second, 2)
    count = len(left)
    every = left.sum(0) @ right.sum(0)
    return float((every - (left * right).sum()) / (count * (count - 1)))


def _pairs(
    first: torch.Tensor, second: torch.Tensor, least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    if first.shape != second.shape:
        raise ValueError(
            'Both versions must have the same shape, got '
            f'{tuple(first.shape)} and {tuple(second.shape)}.'
        )
    return unit_rows(as_matrix(first, least)), unit_rows(as_matrix(second))
