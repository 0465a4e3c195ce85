from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn

from mm_rotssl.registry import MODELS


@MODELS.register_module()
class DecouplingNeck(BaseModule):
    """Turn feature maps into a vector that can be divided.

    Rotation Feature Decoupling divides the 4096 outputs of AlexNet's fully
    connected layers. For networks that end with a feature map this neck
    gives such a vector: average pooling, then a linear layer with batch
    normalization and ReLU, like AlexNet's, so that each half draws on all
    channels. (Our choice; the paper has AlexNet only. To divide the pooled
    channels themselves would divide the network.)

    Args:
        in_channels (int): Channels of the backbone's last output.
        out_channels (int): Length of the vector, both parts together.
            Defaults to 4096, as in the paper.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 4096,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if in_channels < 1 or out_channels < 2:
            raise ValueError(
                f'in_channels={in_channels} and out_channels={out_channels} '
                'of DecouplingNeck must be positive, the latter at least 2.'
            )
        self.layers = nn.Sequential(
            nn.Linear(in_channels, out_channels, bias=False),
            nn.BatchNorm1d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, feats: Sequence[torch.Tensor]) -> tuple[torch.Tensor]:
        """Map the last stage to a vector.

        Args:
            feats (Sequence[Tensor]): The last of shape (M, in_channels, H,
                W) or (M, in_channels).

        Returns:
            tuple[Tensor]: (M, out_channels), not negative.
        """
        feat = feats[-1]
        if feat.dim() == 4:
            feat = feat.mean((2, 3))
        return (self.layers(feat),)
