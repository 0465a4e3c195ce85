import math
from typing import Any

import cv2
import mmcv
import numpy as np
from mmpretrain.datasets.transforms import RandomResizedCrop

from mm_rotssl.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomResizedCropFlip(RandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop`` and ``RandomFlip`` in one step.

    The distribution of crops and the resizing are the same. What those two
    spend outside of OpenCV is about a fifth of the time in which libjpeg
    decodes an image of 500x375; most of it is saved here (see
    ``docs/benchmarks.md``).

    **Required Keys:**

    - img

    **Modified Keys:**

    - img
    - img_shape

    **Added Keys:**

    - flip

    Args:
        scale (int | Sequence[int]): Height and width of the result in
            pixels; one number for a square.
        flip_prob (float): Probability of mirroring left to right. Defaults
            to 0.
        **kwargs: Other arguments of mmpretrain's ``RandomResizedCrop``.

    Raises:
        ValueError: If ``flip_prob`` is not in 0..1.
    """

    def __init__(
        self, scale: Any, flip_prob: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(scale, **kwargs)
        if not 0 <= flip_prob <= 1:
            raise ValueError(
                f'flip_prob={flip_prob} of RandomResizedCropFlip must be in '
                '0..1.'
            )
        self.flip_prob = flip_prob

    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        """Draw a crop.

        Args:
            img (ndarray): Image (H, W) or (H, W, C).

        Returns:
            tuple[int, int, int, int]: Top, left, height and width.
        """
        height, width = img.shape[:2]
        small, large = self.crop_ratio_range
        narrow, wide = map(math.log, self.aspect_ratio_range)
        for _ in range(self.max_attempts):
            # one call for all four, because calls cost more than the rest
            area, ratio, top, left = np.random.random_sample(4).tolist()
            area = (small + area * (large - small)) * height * width
            ratio = math.exp(narrow + ratio * (wide - narrow))
            crop_width = round(math.sqrt(area * ratio))
            crop_height = round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                return (
                    int(top * (height - crop_height + 1)),
                    int(left * (width - crop_width + 1)),
                    crop_height,
                    crop_width,
                )
        # mmpretrain's fallback for elongated images: in the end a center crop
        return super().rand_crop_params(img)

    def transform(self, results: dict) -> dict:
        """Crop, resize and flip.

        Args:
            results (dict): With ``img``, (H, W) or (H, W, C).

        Returns:
            dict: The same, with ``img`` of the new size.
        """
        img = results['img']
        top, left, height, width = self.rand_crop_params(img)
        img = mmcv.imresize(
            img[top : top + height, left : left + width],
            tuple(self.scale[::-1]),
            interpolation=self.interpolation,
            backend=self.backend,
        )
        results['flip'] = bool(np.random.random_sample() < self.flip_prob)
        if results['flip']:
            img = cv2.flip(img, 1)
        results['img'] = img
        results['img_shape'] = img.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, flip_prob={self.flip_prob})'
