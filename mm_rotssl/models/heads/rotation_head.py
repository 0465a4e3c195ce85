from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn

from mm_rotssl.registry import MODELS


@MODELS.register_module()
class RotationHead(BaseModule):
    """Classifier over the rotations.

    It differs from mmpretrain's ``LinearClsHead`` in where the labels come
    from: they are handed in as a tensor, never read from the data samples,
    so that annotations can't reach the loss.

    Args:
        in_channels (int): Length of the feature vector.
        num_rotations (int): Number of angles; :class:`RotNet` fills it in
            from its own ``rotations``.
        loss (dict): Config of the loss over (M, num_rotations) logits and
            (M,) labels. Defaults to the cross entropy of the paper, plain
            mean, no smoothing.
        hid_channels (int, optional): Width of hidden layers with layer
            normalization and ReLU, as in E-SSL. Defaults to None: the
            classifier is linear, as in RotNet.
        num_hidden (int): Number of hidden layers, if ``hid_channels`` is
            given. E-SSL has two on CIFAR-10 and three on ImageNet. Defaults
            to 1.
        init_cfg (dict, optional): Initialization. Defaults to None, PyTorch's
            own, as in the official code (its ``weight_initialization`` is
            never called).

    Raises:
        ValueError: If a number of channels or rotations is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        num_rotations: int = 4,
        loss: dict | None = None,
        hid_channels: int | None = None,
        num_hidden: int = 1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        hidden = in_channels if hid_channels is None else hid_channels
        if min(in_channels, num_rotations, hidden, num_hidden) < 1:
            raise ValueError(
                f'in_channels={in_channels}, num_rotations={num_rotations}, '
                f'hid_channels={hid_channels} and num_hidden={num_hidden} of '
                'RotationHead must be positive.'
            )
        self.in_channels = in_channels
        self.num_rotations = num_rotations
        # The prefix keeps the default valid in the scopes of mmdet and
        # mmseg, whose losses of the same name take other arguments.
        self.loss_module = MODELS.build(
            loss or dict(type='mmpretrain.CrossEntropyLoss')
        )
        self.hidden = nn.Sequential()
        if hid_channels is not None:
            for width in (in_channels, *[hid_channels] * (num_hidden - 1)):
                self.hidden.extend(
                    (
                        nn.Linear(width, hid_channels),
                        nn.LayerNorm(hid_channels),
                        nn.ReLU(inplace=True),
                    )
                )
        self.fc = nn.Linear(hidden, num_rotations)

    def forward(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Classify the last stage.

        Args:
            feats (Sequence[Tensor]): Stages of the neck or backbone, the
                last of shape (M, in_channels).

        Returns:
            Tensor: Logits (M, num_rotations).

        Raises:
            ValueError: If the last stage has another shape.
        """
        feat = feats[-1]
        if feat.dim() != 2 or feat.size(1) != self.in_channels:
            raise ValueError(
                f'RotationHead(in_channels={self.in_channels}) was handed '
                f'features of shape {tuple(feat.shape)}. Set '
                'model.head.in_channels to the length that the backbone '
                "gives, and model.neck=dict(type='GlobalAveragePooling') "
                'where it gives maps.'
            )
        return self.fc(self.hidden(feat))

    def loss(
        self,
        feats: Sequence[torch.Tensor],
        labels: torch.Tensor,
        weight: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss and accuracy.

        Args:
            feats (Sequence[Tensor]): As in :meth:`forward`.
            labels (Tensor): Index of the rotation, int64 (M,).
            weight (Tensor, optional): Factor of each row's loss, (M,). The
                sum is divided by M, not by the sum of the factors. Defaults
                to None, all 1.

        Returns:
            dict[str, Tensor]: ``loss``, a scalar, and
            ``rotation_accuracy`` in percent.
        """
        # in float32 under autocast too
        logits = self(feats).float()
        hits = logits.argmax(1) == labels
        return dict(
            loss=self.loss_module(logits, labels, weight=weight),
            rotation_accuracy=100 * hits.float().mean(),
        )
