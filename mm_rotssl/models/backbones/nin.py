from collections.abc import Sequence

from torch import nn

from mm_rotssl.registry import MODELS

from .staged_backbone import StagedBackbone, conv_bn_relu


@MODELS.register_module()
class NIN(StagedBackbone):
    """Network in Network of RotNet's CIFAR-10 experiments.

    Every stage is three convolutions, each followed by batch normalization
    and ReLU: a spatial one and two of 1x1. Stages 1 and 2 end with a pooling
    of stride 2. For 32x32 images and the paper's width the stages give
    96x16x16, 192x8x8, 192x8x8, ...

    Source: RotNet (https://arxiv.org/abs/1803.07728), section 4.1. Layers,
    order of pooling and PyTorch's default initialization as in the official
    code with the settings of RotNet (no pooling after stage 3; the code's He
    initialization is defined but never called).

    Args:
        num_stages (int): Three, four or five in the paper. Defaults to 4.
        in_channels (int): Channels of the images. Defaults to 3.
        base_channels (int): Width; the first stage is narrower in the
            proportions 1, 5/6, 1/2. Defaults to 192, the paper's.
        out_indices (int | Sequence[int]): Stages to return, counted from 0.
            Defaults to -1, the last.
        frozen_stages (int): Index of the last frozen stage, whose weights
            are fixed and which stays in eval mode; -1 for none. Defaults to
            -1.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If ``num_stages`` is below 3, ``base_channels`` no
            multiple of 6, or an index names no stage.
    """

    def __init__(
        self,
        num_stages: int = 4,
        in_channels: int = 3,
        base_channels: int = 192,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        if num_stages < 3:
            raise ValueError(f'num_stages={num_stages} of NIN: at least 3.')
        if base_channels < 6 or base_channels % 6:
            raise ValueError(
                f'base_channels={base_channels} of NIN must be a multiple of '
                '6, so that the narrower layers of stage 1 come out whole.'
            )
        wide = base_channels
        narrow = wide // 2
        stages = [
            nn.Sequential(
                conv_bn_relu(in_channels, wide, 5, padding=2),
                conv_bn_relu(wide, wide * 5 // 6, 1),
                conv_bn_relu(wide * 5 // 6, narrow, 1),
                nn.MaxPool2d(3, 2, 1),
            )
        ]
        for number in range(2, num_stages + 1):
            channels = narrow if number == 2 else wide
            size = 5 if number == 2 else 3
            layers: list[nn.Module] = [
                conv_bn_relu(channels, wide, size, padding=size // 2),
                conv_bn_relu(wide, wide, 1),
                conv_bn_relu(wide, wide, 1),
            ]
            if number == 2:
                layers.append(nn.AvgPool2d(3, 2, 1))
            stages.append(nn.Sequential(*layers))
        super().__init__(stages, out_indices, frozen_stages, init_cfg)
