import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn

from mm_rotssl.registry import MODELS

from ..backbones.staged_backbone import conv_bn_relu


@MODELS.register_module()
class FlattenNeck(BaseModule):
    """Flatten the feature map of the last stage.

    The non-linear probe of RotNet's CIFAR-10 experiments
    (https://arxiv.org/abs/1803.07728, section 4.1) reads the whole map,
    without pooling.
    """

    def forward(self, feats: Sequence[torch.Tensor]) -> tuple[torch.Tensor]:
        """Flatten the last stage.

        Args:
            feats (Sequence[Tensor]): The last of shape (N, C, H, W).

        Returns:
            tuple[Tensor]: (N, C * H * W).
        """
        return (feats[-1].flatten(1),)


@MODELS.register_module()
class NINConvNeck(BaseModule):
    """Trainable NIN block and global average pooling over a frozen stage.

    With a linear layer behind it this is the convolutional classifier of
    RotNet's CIFAR-10 experiments (https://arxiv.org/abs/1803.07728, section
    4.1, "RotNet + conv"). Initialized as in the official code, normal with
    variance 2 / (k * k * out_channels).

    Args:
        in_channels (int): Channels of the frozen stage.
        channels (int): Channels of the block. Defaults to 192.
    """

    def __init__(self, in_channels: int, channels: int = 192) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_bn_relu(in_channels, channels, 3, padding=1),
            conv_bn_relu(channels, channels, 1),
            conv_bn_relu(channels, channels, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] ** 2 * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, feats: Sequence[torch.Tensor]) -> tuple[torch.Tensor]:
        """Run the block on the last stage.

        Args:
            feats (Sequence[Tensor]): The last of shape (N, in_channels, H,
                W).

        Returns:
            tuple[Tensor]: (N, channels).
        """
        return (self.layers(feats[-1]),)
