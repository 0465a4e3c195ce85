from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import pool_features
from mm_rotssl.registry import MODELS

from .base import SelfSupervisor


@MODELS.register_module()
class SCAN(SelfSupervisor):
    """Classes without labels: neighbors of a pre-trained network agree.

    The second of three steps. The first is any pre-training, by whose
    features ``mm-rotssl mine-neighbors`` finds the neighbors; the third is
    :class:`SelfLabel`. The backbone starts from the first step's weights
    (``load_from`` or ``init_cfg``).

    Source: Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool,
    *SCAN: Learning to Classify Images without Labels*, ECCV 2020
    (https://arxiv.org/abs/2005.12320), and the authors' code,
    https://github.com/wvangansbeke/Unsupervised-Classification.

    Args:
        backbone (dict | nn.Module): That of the first step; of its last
            output, a map is averaged. With ``frozen_stages`` and
            ``norm_eval`` the classifiers alone learn, as on ImageNet.
        head (dict | nn.Module): A :class:`ScanHead`.
        data_preprocessor (dict | nn.Module, optional): Defaults to
            mmpretrain's ``SelfSupDataPreprocessor``.
        init_cfg (dict, optional): Initialization. Defaults to None.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            backbone,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )

    def loss(
        self,
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compare images with their neighbors.

        Args:
            inputs (list[Tensor]): Images and a neighbor of each,
                (B, C, H, W); they are normalized apart, as in the authors'
                code.
            data_samples (list[DataSample], optional): Not read.

        Returns:
            dict[str, Tensor]: See :meth:`ScanHead.loss`.

        Raises:
            ValueError: If there are no neighbors.
        """
        images, neighbors = self._two(
            inputs,
            'an image and a neighbor: train on '
            "dict(type='mm_rotssl.NeighborPairs', dataset=dict(...), "
            "neighbors='FILE').",
        )
        return self.head.loss(self._pool(images), self._pool(neighbors))

    def _pool(self, views: torch.Tensor) -> torch.Tensor:
        return pool_features(self.extract_feat(views))[-1]

    def _two(self, inputs: Any, remedy: str) -> list[torch.Tensor]:
        if isinstance(inputs, torch.Tensor) or len(inputs) != 2:
            raise ValueError(f'{type(self).__name__} needs {remedy}')
        views: list[torch.Tensor] = inputs
        return views

    def predict_fields(
        self, inputs: torch.Tensor, feats: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Put images into the classes of the best classifier.

        Args:
            inputs (Tensor): Not read.
            feats (Sequence[Tensor]): The backbone's outputs for N images.

        Returns:
            dict[str, Tensor]: ``pred_score`` (N, classes) and
            ``pred_label``, int64 (N, 1).
        """
        scores = self.head(pool_features(feats)[-1]).softmax(1)
        return dict(
            pred_score=scores, pred_label=scores.argmax(1, keepdim=True)
        )


@MODELS.register_module()
class SelfLabel(SCAN):
    """Learn from one's own sure predictions, the third step of SCAN.

    Images that are put into a class with a probability above ``threshold``
    as they are must be put there when they are changed. It may help or do
    harm: classes of which no image is sure vanish. Compare both steps.

    Source: Van Gansbeke et al., *SCAN: Learning to Classify Images without
    Labels*, ECCV 2020 (https://arxiv.org/abs/2005.12320), section 2.3. Where
    no image is sure the authors' code ends in an error; here the loss is 0.

    Args:
        backbone (dict | nn.Module): That of :class:`SCAN`.
        head (dict | nn.Module): Its :class:`ScanHead`.
        threshold (float): Defaults to 0.99.
        balanced (bool): Let each class that occurs have the same share of the
            loss; the authors do except on ImageNet. Defaults to True.
        data_preprocessor (dict | nn.Module, optional): Defaults to
            mmpretrain's ``SelfSupDataPreprocessor``.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If ``threshold`` is not in 0..1.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        threshold: float = 0.99,
        balanced: bool = True,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(backbone, head, data_preprocessor, init_cfg)
        if not 0 <= threshold < 1:
            raise ValueError(
                f'threshold={threshold} of SelfLabel must be in 0..1.'
            )
        self.threshold = threshold
        self.balanced = balanced

    def loss(
        self,
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Cross entropy with the sure predictions.

        Args:
            inputs (list[Tensor]): Images as they are, and changed,
                (B, C, H, W).
            data_samples (list[DataSample], optional): Not read.

        Returns:
            dict[str, Tensor]: See :meth:`ScanHead.self_label_loss`.

        Raises:
            ValueError: If there are not two views.
        """
        weak, strong = self._two(
            inputs,
            "two views: dict(type='MultiView', num_views=[1, 1], "
            'transforms=[WEAK, STRONG]).',
        )
        with torch.no_grad():
            weak = self._pool(weak)
        return self.head.self_label_loss(
            weak, self._pool(strong), self.threshold, self.balanced
        )
