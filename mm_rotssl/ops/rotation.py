"""Rotations of a batch, on its own device."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

ALLOWED = tuple(range(0, 360, 45))


def check_rotations(rotations: Sequence[int]) -> tuple[int, ...]:
    """Return ``rotations`` as a tuple, or say what is wrong with it.

    Args:
        rotations (Sequence[int]): Angles in degrees, counter-clockwise.

    Returns:
        tuple[int, ...]: The same angles.

    Raises:
        ValueError: If there are fewer than two angles, an angle comes twice,
            or one is not a multiple of 45 in 0..315.
    """
    angles = tuple(rotations)
    if (
        len(angles) < 2
        or len(set(angles)) != len(angles)
        or not set(angles) <= set(ALLOWED)
    ):
        raise ValueError(
            f'rotations={angles} must name two or more different angles '
            f'out of {ALLOWED} (degrees, counter-clockwise), e.g. '
            '(0, 90, 180, 270), (0, 180) or (90, 270).'
        )
    return angles


def check_square(height: int, width: int) -> None:
    """Refuse images whose shape would betray the rotation.

    Args:
        height (int): Rows in pixels.
        width (int): Columns in pixels.

    Raises:
        ValueError: If the two differ.
    """
    if height != width:
        raise ValueError(
            f'Rotation prediction needs square images, got height {height} '
            f'and width {width}: rotated by 90 degrees, their shape alone '
            'would give the label away. Add a square crop to the pipeline, '
            "e.g. dict(type='RandomResizedCrop', scale=224) or "
            "dict(type='CenterCrop', crop_size=224)."
        )


def _resample(images: torch.Tensor, angle: float) -> torch.Tensor:
    """Rotate by ``angle`` and sample the square that is valid at any angle.

    The square inscribed in the image's inner circle has the side
    ``S / sqrt(2)``; it is resampled to ``S``, hence no fill and the same
    content at every angle.
    """
    radians = math.radians(angle)
    cos, sin = math.cos(radians), math.sin(radians)
    # maps output to input coordinates (x right, y down): an image rotated
    # counter-clockwise samples the input clockwise
    matrix = images.new_tensor([[cos, -sin, 0.0], [sin, cos, 0.0]])
    grid = F.affine_grid(
        (matrix / math.sqrt(2)).expand(len(images), 2, 3),
        list(images.shape),
        align_corners=False,
    )
    return F.grid_sample(
        images, grid, padding_mode='border', align_corners=False
    )


def rotate_batch(
    images: torch.Tensor, rotations: Sequence[int] = (0, 90, 180, 270)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate every image by every angle.

    All copies of an image belong in the same forward pass: one pass per
    angle would give BatchNorm a batch of a single label, whose statistics
    give the label away.

    Multiples of 90 degrees are exact (``torch.rot90``): no pixel is
    interpolated or filled. As soon as an odd multiple of 45 degrees is
    asked for, all angles show the center square that stays inside the
    image at every angle (side ``S / sqrt(2)``), resampled bilinearly to
    ``S``: a filled corner would give the angle away, and so would it if
    only some copies were cropped or interpolated.

    Args:
        images (Tensor): Square images (N, C, S, S), floating point where
            an odd multiple of 45 degrees is among the angles.
        rotations (Sequence[int]): R angles in degrees, counter-clockwise.
            Defaults to (0, 90, 180, 270).

    Returns:
        tuple[Tensor, Tensor]: The images (N * R, C, S, S), interleaved as
        in the official code: row ``R * i + r`` is image ``i`` rotated
        by ``rotations[r]``; and the labels ``r``, int64 of shape (N * R,).

    Raises:
        ValueError: If the images are not square or the angles not
            multiples of 45 degrees.

    Examples:
        >>> import torch
        >>> image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
        >>> copies, labels = rotate_batch(image, (0, 90))
        >>> copies[1, 0].tolist(), labels.tolist()
        ([[2.0, 4.0], [1.0, 3.0]], [0, 1])

    Source: RotNet (https://arxiv.org/abs/1803.07728), section 3.1. The paper
    does not say how its 45-degree copies were cropped; the inscribed square
    is our choice.
    """
    rotations = check_rotations(rotations)
    check_square(*images.shape[-2:])
    upright = {0: images}
    if any(angle % 90 for angle in rotations):
        upright = {angle: _resample(images, angle) for angle in (0, 45)}
    copies = [
        torch.rot90(upright[angle % 90], angle // 90, (2, 3))
        for angle in rotations
    ]
    labels = torch.arange(len(rotations), device=images.device)
    return torch.stack(copies, 1).flatten(0, 1), labels.repeat(len(images))


def upright_index(rotations: Sequence[int]) -> int:
    """Place of the un-rotated copy.

    Args:
        rotations (Sequence[int]): Angles in degrees.

    Returns:
        int: Index of 0 in them.

    Raises:
        ValueError: If it is not among them.
    """
    if 0 not in rotations:
        raise ValueError(
            f'rotations={tuple(rotations)} holds no 0: without un-rotated '
            'copies there is no probability of being one. Leave the noise '
            'weights out, or add 0.'
        )
    return tuple(rotations).index(0)


def noise_weights(
    probabilities: torch.Tensor, rotations: Sequence[int], gamma: float = 2.0
) -> torch.Tensor:
    r"""Weights of the rotation loss.

    .. math:: w_{i,y} = 1 - p_{i,y}^\gamma, \quad w_{i,0} = 1

    A rotated copy that looks un-rotated has an unreliable label and counts
    little; the un-rotated copy's own label is never in doubt.

    Source: Feng, Xu and Tao, *Self-Supervised Representation Learning by
    Rotation Feature Decoupling*, CVPR 2019, section 3.1; the exponent is
    that of the probability, as in the official code, not of 1 - p.

    Args:
        probabilities (Tensor): Of being un-rotated, (N, R), 0..1.
        rotations (Sequence[int]): The R angles in degrees.
        gamma (float): Exponent. Defaults to 2, as in the official code.

    Returns:
        Tensor: (N, R), of the same dtype.

    Examples:
        >>> import torch
        >>> p = torch.tensor([[0.9, 0.0, 0.5, 1.0]])
        >>> noise_weights(p, (0, 90, 180, 270)).tolist()
        [[1.0, 1.0, 0.75, 0.0]]
    """
    weights = 1 - probabilities**gamma
    weights[:, upright_index(rotations)] = 1
    return weights
