from itertools import pairwise

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_init
from torch import nn

from mm_rotssl.registry import MODELS


@MODELS.register_module()
class SelfClassifierNeck(BaseModule):
    """Multilayer perceptron whose outputs have length 1.

    Linear layers with biases, with normalization and LeakyReLU (slope 0.01)
    between them and neither after the last.

    Source: Amrani, Karlinsky and Bronstein, *Self-Supervised Classification
    Network*, ECCV 2022 (https://arxiv.org/abs/2103.10994), and the authors'
    code, with the settings of its scripts: two layers, batch normalization.
    (The defaults of its command line are another network.)

    Args:
        in_channels (int): Length of the backbone's features.
        hid_channels (int): Width of the hidden layers. Defaults to 4096.
        out_channels (int): Length of the outputs. Defaults to 128.
        num_layers (int): Number of linear layers, ``--num-hidden`` of the
            authors' code. Defaults to 2.
        norm_cfg (dict, optional): Normalization, None for none. Defaults to
            dict(type='BN1d').
        init_cfg (dict, optional): Initialization. Defaults to None: as the
            authors', weights normal with a standard deviation of 0.02,
            truncated at -2 and 2, and biases 0.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        hid_channels: int = 4096,
        out_channels: int = 128,
        num_layers: int = 2,
        norm_cfg: dict | None = dict(type='BN1d'),  # noqa: B006
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if min(in_channels, hid_channels, out_channels, num_layers) < 1:
            raise ValueError(
                f'in_channels={in_channels}, hid_channels={hid_channels}, '
                f'out_channels={out_channels} and num_layers={num_layers} of '
                'SelfClassifierNeck must be positive.'
            )
        widths = [
            in_channels,
            *[hid_channels] * (num_layers - 1),
            out_channels,
        ]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            if layers:
                if norm_cfg is not None:
                    layers.append(build_norm_layer(norm_cfg, before)[1])
                layers.append(nn.LeakyReLU(inplace=True))
            layers.append(nn.Linear(before, after))
        self.mlp = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                trunc_normal_init(layer, std=0.02, a=-2, b=2)
        self.in_channels = in_channels

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Embed feature vectors.

        Args:
            feats (Tensor): (M, in_channels).

        Returns:
            Tensor: (M, out_channels), float32, of length 1.

        Raises:
            ValueError: If the features have another length.
        """
        if feats.dim() != 2 or feats.size(1) != self.in_channels:
            raise ValueError(
                f'SelfClassifierNeck(in_channels={self.in_channels}) was '
                f'handed features of shape {tuple(feats.shape)}. Set '
                'model.neck.in_channels to the length that the backbone '
                'gives.'
            )
        # float32, because similar images have nearly equal embeddings
        return F.normalize(self.mlp(feats).float(), dim=1, eps=1e-7)
