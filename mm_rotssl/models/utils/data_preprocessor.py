from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmpretrain.models import SelfSupDataPreprocessor

from mm_rotssl.ops import deform_patches, sobel
from mm_rotssl.registry import MODELS


@MODELS.register_module()
class MultiChannelDataPreprocessor(SelfSupDataPreprocessor):
    """Normalize images of any number of channels.

    mmpretrain's ``SelfSupDataPreprocessor``, which takes one or three means,
    for those of multi-spectral and medical images.

    Args:
        mean (Sequence[float], optional): Of each channel, C of them, or one
            for all, in the order of the pipeline. Defaults to None, nothing
            is normalized.
        std (Sequence[float], optional): Of each channel, as many.
        rgb_channels (Sequence[int]): Of more than three channels, which ones
            figures show as red, green and blue. Defaults to (0, 1, 2).
        **kwargs: Other arguments of mmpretrain's ``SelfSupDataPreprocessor``.

    Raises:
        ValueError: If there are not as many deviations as means, one is not
            positive, others than three channels are to be exchanged, or
            ``rgb_channels`` are not three of them; when applied, if an image
            has another number of channels.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        rgb_channels: Sequence[int] = (0, 1, 2),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rgb_channels = tuple(rgb_channels)
        if mean is None and std is None:
            return
        name, mean, std = type(self).__name__, mean or (), std or ()
        for key in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'):
            if kwargs.get(key) and len(mean) not in (1, 3):
                raise ValueError(
                    f'{key}=True of {name}: there are {len(mean)} channels. '
                    'Set it to False, and give mean and std in the order of '
                    'the pipeline.'
                )
        if (
            len(mean) != len(std)
            or not len(mean)
            or not all(value > 0 for value in std)
        ):
            raise ValueError(
                f'mean={list(mean)} and std={list(std)} of {name}: one number '
                'a channel in each, those of std positive.'
            )
        if len(rgb_channels) != 3 or not all(
            0 <= channel < max(3, len(mean)) for channel in rgb_channels
        ):
            raise ValueError(
                f'rgb_channels={list(rgb_channels)} of {name}: three '
                f'positions among the {len(mean)} channels, from 0.'
            )
        self._enable_normalize = True
        for key, values in dict(mean=mean, std=std).items():
            tensor = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(key, tensor.view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move to the device and normalize.

        Args:
            data (dict): ``inputs``, (N, C, H, W), or a list of such, one a
                view; and ``data_samples``.
            training (bool): Not read. Defaults to False.

        Returns:
            dict: ``inputs``, float32, and ``data_samples``.

        Raises:
            ValueError: If there is not one mean a channel.
        """
        views = data['inputs']
        for view in views if isinstance(views, (list, tuple)) else [views]:
            if self._enable_normalize and len(self.mean) not in (
                1,
                view.size(1),
            ):
                raise ValueError(
                    f'The images have {view.size(1)} channels, and '
                    f'data_preprocessor has {len(self.mean)} means. Give one '
                    "each, and color_type='unchanged' to the loader in every "
                    'pipeline, so that it reads all channels.'
                )
        result: dict = super().forward(data, training)
        return result


@MODELS.register_module()
class SobelDataPreprocessor(MultiChannelDataPreprocessor):
    """Normalize images, and hand on the gradients of their gray values.

    For a backbone with ``in_channels=2``. So its features are those of
    shapes, not of colors; see :func:`sobel`. A network that follows it takes
    no color image: exported to a detector, it needs this preprocessor.

    Args:
        **kwargs: Arguments of :class:`MultiChannelDataPreprocessor`.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move to the device, normalize and filter.

        Args:
            data (dict): ``inputs``, (N, C, H, W), or a list of such, one a
                view; and ``data_samples``.
            training (bool): Not read. Defaults to False.

        Returns:
            dict: ``inputs``, float32, (N, 2, H, W) or such a list, and
            ``data_samples``.
        """
        result = super().forward(data, training)
        inputs = result['inputs']
        return {
            **result,
            'inputs': [sobel(view) for view in inputs]
            if isinstance(inputs, (list, tuple))
            else sobel(inputs),
        }


@MODELS.register_module()
class DeformationDataPreprocessor(MultiChannelDataPreprocessor):
    """Deform a batch of windows on the device, then normalize the patches.

    For ``RandomDeformation(on_device=True)``, whose numbers come with the
    samples. Batches without them, such as those of validation, are handled
    as mmpretrain's ``SelfSupDataPreprocessor`` does.

    Args:
        patch_size (int): Side of the patches in pixels, as the backbone
            gets them: that of ``RandomDeformation``, or another one, to which
            they are scaled in sampling. Defaults to 32.
        **kwargs: Arguments of :class:`MultiChannelDataPreprocessor`. Where
            colors are changed the channels must be red, green, blue after its
            conversion.
    """

    def __init__(self, patch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def forward(self, data: dict, training: bool = False) -> dict:
        """Move to the device, deform and normalize.

        Args:
            data (dict): ``inputs``, uint8 or float (N, C, H, W), and
                ``data_samples``, each with ``deformation`` or none.
            training (bool): Not read. Defaults to False.

        Returns:
            dict: ``inputs``, float32 (N, C, S, S), and ``data_samples``.
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
