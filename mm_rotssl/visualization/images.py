from collections.abc import Mapping
from typing import Any

import numpy as np

# of values that are not 8-bit, the range that is shown: mean +- so many
# standard deviations
SHOWN_DEVIATIONS = 2


def to_rgb(
    pixels: np.ndarray, data_preprocessor: Mapping[str, Any] | None
) -> np.ndarray:
    """Make an image visible, whatever its channels and values are.

    Of more than three channels three are shown; of two, the first. Values
    that are not 8-bit are brought to 0..255 by the mean and the standard
    deviation of the data preprocessor, so that images can be compared; where
    it has none, or not of these channels, by the lowest and the highest value
    of the image. NaN and infinity count as 0.

    Args:
        pixels (ndarray): As a pipeline gives it, (H, W, C).
        data_preprocessor (Mapping, optional): Settings that tell the order
            of the channels, see
            :class:`~mm_rotssl.models.MultiChannelDataPreprocessor`.

    Returns:
        ndarray: uint8 (H, W, 3), in RGB order.
    """
    settings = data_preprocessor or {}
    if pixels.shape[2] > 3:
        shown = list(settings.get('rgb_channels') or (0, 1, 2))
    elif pixels.shape[2] < 3:
        shown = [0, 0, 0]
    elif settings.get('bgr_to_rgb') or settings.get('to_rgb'):
        shown = [2, 1, 0]
    else:
        shown = [0, 1, 2]
    if pixels.dtype == np.uint8:
        return pixels[..., shown]
    values = pixels.astype(np.float64)
    # where nothing was measured
    values = np.where(np.isfinite(values), values, 0)
    low: Any
    span: Any
    given = settings.get('mean')
    # one gray channel may be normalized to three
    if given is not None and np.size(given) in (1, pixels.shape[2]):
        # they are in the order of the result where there are three
        order = slice(None) if pixels.shape[2] == 3 else shown
        mean, std = (
            np.broadcast_to(settings[key], pixels.shape[2])[order]
            for key in ('mean', 'std')
        )
        low, span = mean - SHOWN_DEVIATIONS * std, 2 * SHOWN_DEVIATIONS * std
    else:
        low, span = values.min(), max(float(np.ptp(values)), 1e-12)
    values = (values[..., shown] - low) / span * 255
    return np.rint(values).clip(0, 255).astype(np.uint8)


def shown_settings(data_preprocessor: Any) -> dict[str, Any]:
    """Read how images are shown from a network's data preprocessor.

    Args:
        data_preprocessor (nn.Module): One of mmengine's, mmpretrain's or
            this package's.

    Returns:
        dict[str, Any]: What :func:`to_rgb` takes.
    """
    found: dict[str, Any] = dict(
        # mmpretrain's two base classes name it differently
        to_rgb=any(
            getattr(data_preprocessor, name, False)
            for name in ('_channel_conversion', 'to_rgb')
        ),
        rgb_channels=getattr(data_preprocessor, 'rgb_channels', None),
    )
    if getattr(data_preprocessor, '_enable_normalize', False):
        for name in ('mean', 'std'):
            tensor = getattr(data_preprocessor, name)
            found[name] = tensor.flatten().tolist()
    return found


def shown_image(
    dataset: Any, index: int, data_preprocessor: Mapping[str, Any] | None
) -> np.ndarray:
    """Take an image of a dataset as its pipeline gives it, to look at.

    Args:
        dataset (Dataset): Gives ``inputs``, (C, H, W).
        index (int): Which image.
        data_preprocessor (Mapping, optional): See :func:`to_rgb`.

    Returns:
        ndarray: uint8 (H, W, 3), in RGB order.
    """
    pixels = dataset[index]['inputs'].numpy().transpose(1, 2, 0)
    return to_rgb(pixels, data_preprocessor)
