from typing import Any

import numpy as np


def shown_image(
    dataset: Any, index: int, data_preprocessor: dict | None
) -> np.ndarray:
    """Take an image of a dataset as its pipeline gives it, to look at.

    Args:
        dataset (Dataset): Gives ``inputs``, uint8 (C, H, W).
        index (int): Which image.
        data_preprocessor (dict, optional): Settings that tell the order of
            the channels.

    Returns:
        ndarray: uint8 (H, W, 3), in RGB order.
    """
    pixels = dataset[index]['inputs'].numpy().transpose(1, 2, 0)
    settings = data_preprocessor or {}
    if settings.get('bgr_to_rgb') or settings.get('to_rgb'):
        pixels = pixels[..., ::-1]
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels
