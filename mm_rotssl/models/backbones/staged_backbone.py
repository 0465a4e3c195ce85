from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution, batch normalization, ReLU."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, bias=bias
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class StagedBackbone(BaseModule):
    """Base class of the backbones: stages that are run one by one.

    The outputs of the stages in ``out_indices`` are returned. A pooling
    between two stages belongs to the one that gives, or receives, what the
    paper takes as features.

    Args:
        stages (Sequence[nn.Module]): The stages, registered as ``stage1``,
            ``stage2``, ...
        out_indices (int | Sequence[int]): Which stages to return, counted
            from 0; negative numbers count from the end.
        frozen_stages (int): Stages up to and including this index keep their
            weights and stay in eval mode. -1 freezes none.
        init_cfg (dict, optional): Initialization.

    Raises:
        ValueError: If an index of ``out_indices`` or ``frozen_stages`` names
            no stage.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        out_indices: int | Sequence[int],
        frozen_stages: int,
        init_cfg: dict | None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        count = len(stages)
        for number, stage in enumerate(stages, 1):
            self.add_module(f'stage{number}', stage)
        if isinstance(out_indices, int):
            out_indices = (out_indices,)
        if not out_indices or not all(
            -count <= i < count for i in out_indices
        ):
            raise ValueError(
                f'out_indices={tuple(out_indices)} of '
                f'{type(self).__name__}: it has {count} stages, so each must '
                f'be in {-count}..{count - 1}.'
            )
        if not -1 <= frozen_stages < count:
            raise ValueError(
                f'frozen_stages={frozen_stages} of {type(self).__name__} '
                f'must be in -1..{count - 1} (it has {count} stages).'
            )
        self.num_stages = count
        self.out_indices = tuple(i % count for i in out_indices)
        self.frozen_stages = frozen_stages
        for stage in self._frozen():
            stage.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        return [
            getattr(self, f'stage{i + 1}')
            for i in range(self.frozen_stages + 1)
        ]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the stages up to the last of ``out_indices``.

        Args:
            x (Tensor): Images (N, C, H, W).

        Returns:
            tuple[Tensor, ...]: The outputs of ``out_indices``, in the order
            of the stages.
        """
        outs = []
        for i in range(max(self.out_indices) + 1):
            x = getattr(self, f'stage{i + 1}')(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'StagedBackbone':
        """Set the mode; frozen stages stay in eval mode.

        Args:
            mode (bool): Training if True. Defaults to True.

        Returns:
            StagedBackbone: Itself.
        """
        super().train(mode)
        for stage in self._frozen():
            stage.eval()
        return self
