from collections.abc import Sequence
from typing import Any, Literal

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import cells_along
from mm_rotssl.registry import MODELS

POOLS = dict(max=nn.AdaptiveMaxPool2d, avg=nn.AdaptiveAvgPool2d)


@MODELS.register_module()
class MultiLinearHead(BaseModule):
    """A linear classifier on the map of each stage, all trained at once.

    Each map is pooled to about 9,000 numbers, normalized by channel without
    affine parameters and classified; the losses are added up. The classifiers
    share nothing, so with SGD each is trained as it would be alone. This is
    how RotNet's official code (https://arxiv.org/abs/1803.07728) and
    mmselfsup, there ``MultiClsHead``, compare the stages of a frozen network.
    For ``ImageClassifier`` without a neck; measured by
    :class:`StageAccuracy`.

    Args:
        in_channels (Sequence[int]): Channels of each of the backbone's
            outputs.
        num_classes (int): Number of classes.
        pool ('max' | 'avg'): Of the cells, the largest value, as RotNet, or
            the mean, as mmselfsup. Defaults to 'max'.
        values (int): See `cells_along`. Defaults to 9,000.
        norm_cfg (dict, optional): Of the normalization, such as
            ``dict(type='SyncBN')`` for several processes. Defaults to None,
            ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization. Defaults to None,
            PyTorch's own.

    Raises:
        ValueError: If ``pool`` is another one.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        pool: Literal['max', 'avg'] = 'max',
        values: int = 9000,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if pool not in POOLS:
            raise ValueError(
                f"pool='{pool}' of MultiLinearHead: 'max' or 'avg'."
            )
        norm_cfg = {'type': 'BN', **(norm_cfg or {}), 'affine': False}
        self.classifiers = nn.ModuleList()
        for channels in in_channels:
            side = cells_along(channels, values)
            self.classifiers.append(
                nn.Sequential(
                    POOLS[pool](side),
                    build_norm_layer(norm_cfg, channels)[1],
                    nn.Flatten(),
                    nn.Linear(channels * side**2, num_classes),
                )
            )
        self.loss_module = MODELS.build(
            dict(type='mmpretrain.CrossEntropyLoss')
        )

    def forward(self, feats: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Classify each stage.

        Args:
            feats (Sequence[Tensor]): A map of each stage, (N, C, H, W).

        Returns:
            list[Tensor]: Logits (N, num_classes) of each.

        Raises:
            ValueError: If there are more or fewer maps than classifiers.
        """
        if len(feats) != len(self.classifiers):
            raise ValueError(
                f'The backbone gives {len(feats)} stages, and '
                f'model.head.in_channels has {len(self.classifiers)}: set '
                'one for each of model.backbone.out_indices.'
            )
        return [
            classifier(feat)
            for classifier, feat in zip(self.classifiers, feats, strict=True)
        ]

    def loss(
        self,
        feats: Sequence[torch.Tensor],
        data_samples: Sequence[DataSample],
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Cross entropy of each stage.

        Args:
            feats (Sequence[Tensor]): A map of each stage, (N, C, H, W).
            data_samples (Sequence[DataSample]): With ``gt_label``.
            kwargs (Any): Not read.

        Returns:
            dict[str, Tensor]: ``loss_stage1`` and so on, in the order of the
            backbone's outputs.
        """
        target = torch.cat([sample.gt_label for sample in data_samples])
        return {
            f'loss_stage{i}': self.loss_module(logits, target)
            for i, logits in enumerate(self(feats), 1)
        }

    def predict(
        self,
        feats: Sequence[torch.Tensor],
        data_samples: Sequence[DataSample] | None = None,
    ) -> list[DataSample]:
        """Classify each stage of each image.

        Args:
            feats (Sequence[Tensor]): A map of each stage, (N, C, H, W).
            data_samples (Sequence[DataSample], optional): One an image; new
                ones are made if None.

        Returns:
            list[DataSample]: The samples with ``stage_scores``, class
            probabilities (stages, num_classes).
        """
        scores = torch.stack(self(feats), 1).softmax(2)
        samples = data_samples or [DataSample() for _ in scores]
        for sample, score in zip(samples, scores, strict=True):
            sample.set_field(score, 'stage_scores')
        return list(samples)
