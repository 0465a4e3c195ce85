"""Deformations of Exemplar-CNN, on the device of the batch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

# Mean and principal components (a row each, the strongest first) of the RGB
# values of ImageNet's pixels, in 0..1. The authors' file has those of STL-10,
# whose images are taken from ImageNet.
COLOR_MEAN = (0.485, 0.456, 0.406)
COLOR_COMPONENTS = (
    (0.5675, 0.5808, 0.5836),
    (0.7192, -0.0045, -0.6948),
    (0.4009, -0.8140, 0.4203),
)
NUM_GEOMETRY = 6
NUM_COLOR = 10
# Windows that are deformed at a time: few enough to need little memory, and
# enough that the overhead of each call does not count.
_PART = 64


def _sample(
    windows: torch.Tensor, geometry: torch.Tensor, size: int
) -> torch.Tensor:
    """Sample patches bilinearly, (N, C, size, size)."""
    # centers of the patch's pixels, in -0.5..0.5
    place = torch.arange(size, device=windows.device, dtype=torch.float32)
    place = (place + 0.5) / size - 0.5
    matrix = geometry.view(-1, 2, 3)
    grid = geometry.new_empty(len(windows), size, size, 2)
    for axis, length in enumerate(windows.shape[:1:-1]):
        # from pixels of the window to -1..1, as grid_sample takes them
        across, down, shift = (2 / length * matrix[:, axis, :, None]).unbind(1)
        torch.add(
            (across * place)[:, None, :],
            (down * place + shift - 1)[:, :, None],
            out=grid[..., axis],
        )
    # 'border': the outer half of a pixel at the edge has that pixel's color
    return F.grid_sample(
        windows, grid, padding_mode='border', align_corners=False
    )


def _power(
    x: torch.Tensor,
    power: torch.Tensor,
    factor: torch.Tensor,
    summand: torch.Tensor,
) -> torch.Tensor:
    """Overwrite x, not negative, with factor * x ** power + summand."""
    # 2 ** (power * log2 x) is several times as fast as torch.pow on a CPU
    return x.log2_().mul_(power).exp2_().mul_(factor).add_(summand)


def _recolor(
    patches: torch.Tensor,
    color: torch.Tensor,
    mean: torch.Tensor,
    components: torch.Tensor,
) -> torch.Tensor:
    """Change the colors of patches (N, 3, S, S) in 0..1; overwrites them."""
    shape = patches.shape
    pixels = patches.flatten(2)
    # x' = mean + E^T diag(f) E (x - mean) = M x + (mean - M mean)
    mix = components.T @ (color[:, :3, None] * components)
    shift = mean[:, None] - mix @ mean[:, None]
    pixels = torch.baddbmm(shift, mix, pixels).clamp_(0, 1)

    low = pixels.amin((1, 2), keepdim=True)
    span = pixels.amax((1, 2), keepdim=True).sub_(low)
    # the minimum lets a patch of a single value become 0, not NaN
    pixels.sub_(low).div_(span.clamp_(min=1e-6))

    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    red, green, blue = pixels.unbind(1)
    divisor = chroma.clamp(min=1e-12)
    hue = torch.where(
        value == red,
        (green - blue).div_(divisor),
        torch.where(
            value == green,
            (blue - red).div_(divisor).add_(2),
            (red - green).div_(divisor).add_(4),
        ),
    )
    saturation = chroma.div_(value.clamp(min=1e-12))
    numbers = color[:, 3:, None].unbind(1)
    value = _power(value, *numbers[:3]).clamp_(0, 1)
    saturation = _power(saturation, *numbers[3:6]).clamp_(0, 1)
    # hue is in sixths of a circle here, its summand in circles
    hue.add_(6 * numbers[6]).remainder_(6)

    weakened = saturation.mul_(value)
    for channel, (sign, middle, offset) in enumerate(
        ((-1, 3, 2), (1, 2, -1), (1, 4, -1))
    ):
        share = (hue - middle).abs_().mul_(sign).add_(offset).clamp_(0, 1)
        torch.addcmul(value, weakened, share, value=-1, out=pixels[:, channel])
    return pixels.view(shape)


@torch.no_grad()
def deform_patches(
    windows: torch.Tensor,
    deformations: torch.Tensor,
    patch_size: int,
    mean: Sequence[float] = COLOR_MEAN,
    components: Sequence[Sequence[float]] = COLOR_COMPONENTS,
) -> torch.Tensor:
    r"""Cut deformed patches out of windows and change their colors.

    In the order of the authors' code: geometry; contrast along the
    principal components of color, of which what leaves 0..1 is cut off; then
    the patch is stretched to 0..1 over all pixels and channels together; then
    saturation, value and hue change, and are cut off before they become
    colors again.

    Source: Dosovitskiy et al., *Discriminative Unsupervised Feature Learning
    with Exemplar Convolutional Neural Networks*, NIPS 2014
    (https://arxiv.org/abs/1406.6909), section 2.1, and the authors' code.
    Their code interpolates twice, when rotating and when scaling; here it is
    once.

    Args:
        windows (Tensor): Images around the seed patches, RGB in 0..255,
            uint8 or float, (N, 3, H, W); of any number of channels if colors
            stay as they are.
        deformations (Tensor): A row each, float32 (N, 6) or (N, 16), as
            :class:`RandomDeformation` draws them. Six numbers of geometry,
            a matrix (2, 3) that maps (x, y, 1) of the patch, x and y from
            -0.5 to 0.5, to pixels of the window, counted from its corner.
            Then, unless colors stay as they are, ten numbers: factors of the
            three principal components; power, factor and summand of the
            value; the same of the saturation; summand of the hue, of which 1
            is the full circle.
        patch_size (int): Side S of the patches in pixels.
        mean (Sequence[float]): Mean RGB of the dataset, 0..1. Defaults to
            that of ImageNet.
        components (Sequence[Sequence[float]]): Principal components of its
            colors, a row each. Defaults to those of ImageNet.

    Returns:
        Tensor: Patches, 0..255, float32 (N, 3, S, S). Where a geometry
        reaches out of its window its outer pixels are repeated; those
        that ``RandomDeformation`` draws do not.

    Raises:
        ValueError: If a shape is wrong.

    Examples:
        >>> import torch
        >>> window = torch.zeros(1, 3, 4, 4)
        >>> window[0, 0, 1, 2] = 255
        >>> # the two by two pixels in the middle, as they are
        >>> middle = torch.tensor([[2.0, 0, 2, 0, 2, 2]])
        >>> deform_patches(window, middle, 2)[0, 0].tolist()
        [[0.0, 255.0], [0.0, 0.0]]
    """
    if windows.dim() != 4:
        raise ValueError(
            f'Windows must be (N, C, H, W), got {tuple(windows.shape)}.'
        )
    numbers = (NUM_GEOMETRY, NUM_GEOMETRY + NUM_COLOR)
    if (
        deformations.dim() != 2
        or len(deformations) != len(windows)
        or deformations.size(1) not in numbers
    ):
        raise ValueError(
            f'Deformations of {len(windows)} windows must be '
            f'({len(windows)}, {numbers[0]}) or ({len(windows)}, '
            f'{numbers[1]}), got {tuple(deformations.shape)}.'
        )
    channels = windows.size(1)
    if channels != 3 and deformations.size(1) > NUM_GEOMETRY:
        raise ValueError(
            f'The images have {channels} channels, and colors can be changed '
            'of three only: set recolor=False of RandomDeformation.'
        )
    deformations = deformations.to(windows.device, torch.float32)
    axes = deformations.new_tensor([*components])
    center = deformations.new_tensor([*mean])
    result = deformations.new_empty(
        len(windows), channels, patch_size, patch_size
    )
    # reused, because allocating memory costs more than converting to float
    buffer = deformations.new_empty(
        min(_PART, len(windows)), *windows.shape[1:]
    )
    # autocast would sample and mix colors in half precision
    with torch.autocast(windows.device.type, enabled=False):
        for window, deformation, patches in zip(
            windows.split(_PART),
            deformations.split(_PART),
            result.split(_PART),
            strict=True,
        ):
            geometry, color = deformation.split(
                [NUM_GEOMETRY, deformation.size(1) - NUM_GEOMETRY], 1
            )
            window = buffer[: len(window)].copy_(window)
            sampled = _sample(window, geometry, patch_size)
            if color.size(1):
                sampled = _recolor(sampled.div_(255), color, center, axes)
                sampled.mul_(255)
            patches.copy_(sampled)
    return result
