"""In how many directions do features vary?"""

import numpy as np
import scipy.linalg
import torch

from .matrix import as_matrix, unit_rows

# an exponent that is fitted to fewer eigenvalues says nothing
FITTED = 10


def rankme(feats: torch.Tensor) -> float:
    r"""Effective rank of features.

    .. math:: \exp\Big(-\sum_k p_k \ln p_k\Big), \quad
              p_k = \frac{\sigma_k}{\sum_j \sigma_j} + 10^{-7}

    with the singular values :math:`\sigma_k` of the features, which are not
    centered.

    Source: Garrido et al., *RankMe: Assessing the Downstream Performance of
    Pretrained Self-Supervised Representations by Their Rank*, ICML 2023
    (https://arxiv.org/abs/2210.02885), section 3.

    Args:
        feats (Tensor): Features (N, C), any float type.

    Returns:
        float: From 1 to min(N, C); 0 if all features are 0.

    Raises:
        ValueError: See `as_matrix`.

    Examples:
        >>> import torch
        >>> round(rankme(torch.eye(4)), 3)
        4.0
    """
    return _effective_rank(
        scipy.linalg.svdvals(as_matrix(feats), check_finite=False)
    )


def alpha_req(
    feats: torch.Tensor, first: int = 11, last: int = 100
) -> float | None:
    r"""How fast the spectrum of the features' covariance falls.

    :math:`\alpha` of :math:`\lambda_k \propto k^{-\alpha}`: the line through
    :math:`(\ln k, \ln \lambda_k)` by least squares with weights
    :math:`1 / k`, over the eigenvalues from ``first`` to ``last``, as far as
    they differ from 0 in float32.

    Source: Agrawal et al., *alpha-ReQ: Assessing Representation Quality in
    Self-Supervised Learning by Measuring Eigenspectrum Decay*, NeurIPS 2022.
    The paper names no range; 11 to 100 and the weights are those of the
    authors' code (its figure of the spectra).

    Args:
        feats (Tensor): Features (N, C), any float type.
        first (int): First eigenvalue, counted from 1, the largest. Defaults
            to 11.
        last (int): Last eigenvalue. Defaults to 100.

    Returns:
        float | None: The exponent; None if fewer than 10 eigenvalues are in
        the range.

    Raises:
        ValueError: See `as_matrix`.
    """
    matrix = as_matrix(feats)
    values = scipy.linalg.svdvals(matrix - matrix.mean(0), check_finite=False)
    # what rounding features to float32 leaves of a singular value of 0
    noise = abs(matrix).max() * np.finfo(np.float32).eps
    values = values[values > noise * max(matrix.shape) ** 0.5]
    place = np.arange(first, min(last, len(values)) + 1)
    if len(place) < FITTED:
        return None
    slope, _ = np.polyfit(
        np.log(place),
        2 * np.log(values[place - 1]),
        1,
        # squared by NumPy
        w=place**-0.5,
    )
    return -float(slope)


def lidar(
    feats: torch.Tensor, images: torch.Tensor, delta: float = 1e-4
) -> float:
    r"""Effective rank of features against what changes of an image do.

    `rankme`'s formula of the eigenvalues of
    :math:`\Sigma_w^{-1/2} \Sigma_b \Sigma_w^{-1/2}`, where
    :math:`\Sigma_b` is the covariance of the images' means and
    :math:`\Sigma_w` the covariance of the views of an image, averaged over
    the images, plus ``delta`` on its diagonal.

    Source: Thilak et al., *LiDAR: Sensing Linear Probing Performance in
    Joint Embedding SSL Architectures*, ICLR 2024
    (https://arxiv.org/abs/2312.04000), section 3.

    Args:
        feats (Tensor): Features of the views (V, C), any float type.
        images (Tensor): Of which image each is a view, int64 (V,); two or
            more of each, in any order.
        delta (float): Defaults to 1e-4, as in public implementations.

    Returns:
        float: From 1 to min(images - 1, C); 0 if the means of all images are
        the same.

    Raises:
        ValueError: If there are fewer than two images or an image has a
            single view. See also `as_matrix`.
    """
    matrix = as_matrix(feats)
    names, where, counts = np.unique(
        images.cpu().numpy(), return_inverse=True, return_counts=True
    )
    if len(where) != len(matrix) or len(names) < 2 or counts.min() < 2:
        raise ValueError(
            f'LiDAR needs two or more images with two or more views each, '
            f'got {len(matrix)} views of {len(names)} images, of one of them '
            f'{counts.min() if len(counts) else 0}.'
        )
    order = np.argsort(where, kind='stable')
    matrix, where = matrix[order], where[order]
    starts = np.flatnonzero(np.diff(where, prepend=-1))
    means = np.add.reduceat(matrix, starts) / counts[:, None]
    within = (matrix - means[where]) / (counts[where, None] - 1) ** 0.5
    between = means - means.mean(0)
    values = scipy.linalg.eigh(
        between.T @ between / (len(names) - 1),
        within.T @ within / len(names) + delta * np.eye(matrix.shape[1]),
        eigvals_only=True,
        check_finite=False,
    )
    return _effective_rank(values.clip(0))


def feature_spread(feats: torch.Tensor) -> float:
    r"""How far features are from being all the same.

    The standard deviation of each channel of the features, scaled to length
    1, is averaged over the channels and multiplied by :math:`\sqrt C`: 0 for
    features that have collapsed to one, 1 for those that lie evenly around
    the origin.

    Source: Chen and He, *Exploring Simple Siamese Representation Learning*,
    CVPR 2021 (https://arxiv.org/abs/2011.10566), section 4.1, where it is
    compared with :math:`1 / \sqrt C` instead.

    Args:
        feats (Tensor): Features (N, C), any float type.

    Returns:
        float: From 0 to 1.

    Raises:
        ValueError: See `as_matrix`.
    """
    matrix = unit_rows(as_matrix(feats))
    return float(matrix.std(0).mean() * matrix.shape[1] ** 0.5)


def dead_channels(feats: torch.Tensor) -> float:
    """Share of channels that are the same for all images.

    Args:
        feats (Tensor): Features (N, C), any float type. A channel is dead if
            its range is at most a millionth of its largest absolute value.

    Returns:
        float: In percent.

    Raises:
        ValueError: See `as_matrix`.

    Examples:
        >>> import torch
        >>> dead_channels(torch.tensor([[1.0, 2.0], [1.0, 3.0]]))
        50.0
    """
    matrix = as_matrix(feats)
    dead = np.ptp(matrix, axis=0) <= 1e-6 * abs(matrix).max(0)
    return float(100 * dead.mean())


def _effective_rank(values: np.ndarray) -> float:
    total = values.sum()
    if not total:
        return 0.0
    share = values / total + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))
