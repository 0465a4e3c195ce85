from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mm_rotssl.ops import check_rotations, check_square
from mm_rotssl.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomRotationWithLabel(BaseTransform):
    """Rotate a square image by one random, labeled angle.

    The single-rotation recipe: RotNet's official code rotates every image
    by all angles within a batch, which :class:`RotNet` does on the device;
    this transform is for those who want one rotation per image instead
    (``rotated_by_dataset=True`` of the algorithm). Put it right before
    ``PackInputs(algorithm_keys=('rotation_label', ))``.

    **Required Keys:**

    - img

    **Modified Keys:**

    - img

    **Added Keys:**

    - rotation_label

    Args:
        rotations (Sequence[int]): Angles in degrees, counter-clockwise,
            multiples of 90; the label is the position in this list.
            Defaults to (0, 90, 180, 270).

    Raises:
        ValueError: If an angle is no multiple of 90 or, when applied, if the
            image is not square.
    """

    def __init__(self, rotations: Sequence[int] = (0, 90, 180, 270)) -> None:
        self.rotations = check_rotations(rotations)
        if any(angle % 90 for angle in self.rotations):
            raise ValueError(
                f'rotations={self.rotations} of RandomRotationWithLabel: '
                'only multiples of 90 are exact here. For multiples of 45 '
                'leave the transform out and set model.rotations; the '
                'algorithm makes them on the device.'
            )

    def transform(self, results: dict) -> dict:
        """Draw an angle, rotate the image and note the label.

        Args:
            results (dict): With ``img``, (S, S) or (S, S, C).

        Returns:
            dict: The same, with ``rotation_label``, an int.
        """
        img = results['img']
        check_square(*img.shape[:2])
        label = np.random.randint(len(self.rotations))
        # torch needs positive strides, which the view of rot90 lacks
        results['img'] = np.ascontiguousarray(
            np.rot90(img, self.rotations[label] // 90)
        )
        results['rotation_label'] = label
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(rotations={self.rotations})'
