import numpy as np
import torch


def as_matrix(feats: torch.Tensor, least: int = 1) -> np.ndarray:
    """Take features to where they are computed with.

    Args:
        feats (Tensor): Features (N, C), any float type.
        least (int): Number of images that are needed. Defaults to 1.

    Returns:
        ndarray: float64 (N, C).

    Raises:
        ValueError: If they have another shape, there are too few, or a
            number is not finite.
    """
    if feats.dim() != 2 or not feats.size(1):
        raise ValueError(
            f'Features must be (images, channels), got {tuple(feats.shape)}.'
        )
    if len(feats) < least:
        raise ValueError(
            f'This needs features of at least {least} images, got '
            f'{len(feats)}. Add images.'
        )
    matrix: np.ndarray = feats.double().cpu().numpy()
    if not np.isfinite(matrix).all():
        raise ValueError(
            'The features have values that are NaN or infinite. Look for the '
            'iteration at which the training diverged, and take an earlier '
            'checkpoint.'
        )
    return matrix


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1; those of length 0 stay.

    Args:
        matrix (ndarray): float64 (N, C).

    Returns:
        ndarray: float64 (N, C).
    """
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(length > 0, length, 1)
