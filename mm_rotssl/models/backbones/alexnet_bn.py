from collections.abc import Sequence

import torch
from torch import nn

from mm_rotssl.registry import MODELS

from .staged_backbone import StagedBackbone, conv_bn_relu


class _FullyConnected(nn.Sequential):
    """Flatten, then two linear layers with normalization and ReLU."""

    def __init__(self, in_features: int, channels: int) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for width in (in_features, channels):
            layers += [
                nn.Linear(width, channels, bias=False),
                nn.BatchNorm1d(channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class _PoolFirst(nn.Sequential):
    """A stage that begins with max pooling."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__(nn.MaxPool2d(3, 2), stage)


@MODELS.register_module()
class AlexNetBN(StagedBackbone):
    """AlexNet with batch normalization, without dropout and local response.

    Six stages: conv1 to conv5, each before its pooling, as the linear
    probes of the literature read them, and the block of two fully connected
    layers. For 224x224 images: 64x55x55, 192x27x27, 384x13x13, 256x13x13,
    256x13x13 and 4096.

    Source: RotNet (https://arxiv.org/abs/1803.07728), section 4.2, and its
    official code: convolutions with bias, linear layers without, PyTorch's
    default initialization. mmpretrain's ``AlexNet`` has no normalization
    and a single output.

    Args:
        in_channels (int): Channels of the images. Defaults to 3.
        out_indices (int | Sequence[int]): Stages to return, counted from 0:
            0..4 for conv1..conv5, 5 for the fully connected block. Defaults
            to -1, the last.
        frozen_stages (int): Index of the last frozen stage, whose weights
            are fixed and which stays in eval mode; -1 for none. Defaults to
            -1.
        input_size (int): Side of the images in pixels, at least 63, which
            decides the size of the first linear layer. Defaults to 224.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If ``input_size`` leaves nothing after the last pooling,
            or an index names no stage.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        input_size: int = 224,
        init_cfg: dict | None = None,
    ) -> None:
        side = (input_size + 2 * 2 - 11) // 4 + 1
        for _ in range(3):
            side = (side - 3) // 2 + 1
        if side < 1:
            raise ValueError(
                f'input_size={input_size} of AlexNetBN: nothing is left after '
                'three poolings; at least 63 pixels are needed.'
            )
        stages = [
            conv_bn_relu(in_channels, 64, 11, 4, 2, bias=True),
            _PoolFirst(conv_bn_relu(64, 192, 5, 1, 2, bias=True)),
            _PoolFirst(conv_bn_relu(192, 384, 3, 1, 1, bias=True)),
            conv_bn_relu(384, 256, 3, 1, 1, bias=True),
            conv_bn_relu(256, 256, 3, 1, 1, bias=True),
            _PoolFirst(_FullyConnected(256 * side * side, 4096)),
        ]
        self.input_size = input_size
        super().__init__(stages, out_indices, frozen_stages, init_cfg)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the stages up to the last of ``out_indices``.

        Args:
            x (Tensor): Images (N, C, H, W); of the configured
                ``input_size`` where the fully connected block is among the
                outputs.

        Returns:
            tuple[Tensor, ...]: The outputs of ``out_indices``.

        Raises:
            ValueError: If the fully connected block is asked for at another
                image size.
        """
        size = (self.input_size, self.input_size)
        if max(self.out_indices) == 5 and tuple(x.shape[-2:]) != size:
            raise ValueError(
                f'AlexNetBN was built for images of {size} and got '
                f'{tuple(x.shape[-2:])}; set model.backbone.input_size.'
            )
        return super().forward(x)
