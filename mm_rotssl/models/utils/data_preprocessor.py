from typing import Any

import numpy as np
import torch
from mmpretrain.models import SelfSupDataPreprocessor

from mm_rotssl.ops import deform_patches
from mm_rotssl.registry import MODELS


@MODELS.register_module()
class DeformationDataPreprocessor(SelfSupDataPreprocessor):
    """Deform a batch of windows on the device, then normalize the patches.

    For ``RandomDeformation(on_device=True)``, whose numbers come with the
    samples. Batches without them, such as those of validation, are handled
    as mmpretrain's ``SelfSupDataPreprocessor`` does.

    Args:
        patch_size (int): Side of the patches in pixels, as the backbone
            gets them: that of ``RandomDeformation``, or another one, to which
            they are scaled in sampling. Defaults to 32.
        **kwargs: Arguments of mmpretrain's ``SelfSupDataPreprocessor``. The
            channels must be red, green, blue after its conversion.
    """

    def __init__(self, patch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move to the device, deform and normalize.

        Args:
            data (dict): ``inputs``, uint8 (N, 3, H, W), and
                ``data_samples``, each with ``deformation`` or none.
            training (bool): Not read. Defaults to False.

        Returns:
            dict: ``inputs``, float32 (N, 3, S, S), and ``data_samples``.
        """
        samples = data.get('data_samples') or ()
        if not samples or 'deformation' not in samples[0]:
            return super().forward(data, training)
        data = self.cast_data(data)
        windows = data['inputs']
        if self._channel_conversion:
            windows = windows[:, [2, 1, 0]]
        numbers = np.stack([sample.deformation for sample in samples])
        patches = deform_patches(
            windows, torch.from_numpy(numbers), self.patch_size
        )
        if self._enable_normalize:
            patches = (patches - self.mean) / self.std
        return dict(inputs=patches, data_samples=data['data_samples'])
