from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import pool_features
from mm_rotssl.registry import MODELS

from .base import SelfSupervisor


@MODELS.register_module()
class SelfClassifier(SelfSupervisor):
    """Labels and representation, learned together in one stage.

    Views of an image, such as those of ``MultiView``, are to be put into
    the same classes, and the classes to be as large as each other.

    Source: Amrani, Karlinsky and Bronstein, *Self-Supervised Classification
    Network*, ECCV 2022 (https://arxiv.org/abs/2103.10994), and the authors'
    code: https://github.com/elad-amrani/self-classifier.

    Args:
        backbone (dict | nn.Module): Any backbone; of its last output, a map
            is averaged.
        neck (dict | nn.Module): A :class:`SelfClassifierNeck`.
        head (dict | nn.Module): A :class:`SelfClassifierHead`.
        queue (dict | nn.Module, optional): A
            :class:`NearestNeighborQueue`. Once it is full, the first view's
            embeddings are replaced by their nearest neighbors in it, through
            which no gradient flows to the backbone. Defaults to None.
        data_preprocessor (dict | nn.Module, optional): Defaults to
            mmpretrain's ``SelfSupDataPreprocessor``.
        init_cfg (dict, optional): Initialization. Defaults to None.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module,
        head: dict | nn.Module,
        queue: dict | nn.Module | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(backbone, neck, head, data_preprocessor, init_cfg)
        if isinstance(queue, dict):
            queue = MODELS.build(queue)
        self.queue: Any = queue

    def embed(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embed views, those of a size in a row together.

        So batch normalization in the backbone sees one size at a time, and
        in the neck all, as in the authors' code.

        Args:
            views (Sequence[Tensor]): V times (B, C, H, W).

        Returns:
            Tensor: (V, B, D), float32, of length 1.
        """
        feats = self.pool_views(views)
        return self.neck(feats).unflatten(0, (len(views), -1))

    def loss(
        self,
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loss, and what tells a collapse.

        Args:
            inputs (list[Tensor]): V views (B, C, H, W), global ones first.
            data_samples (list[DataSample], optional): One an image, read
                for their ``sample_idx`` if there is a queue.

        Returns:
            dict[str, Tensor]: See :meth:`SelfClassifierHead.loss`; once the
            queue is full also ``neighbor_agreement``, how many neighbors
            are of the same class as their image, in percent.

        Raises:
            ValueError: If there is only one view, or an image has no
                ``sample_idx``.
        """
        if isinstance(inputs, torch.Tensor) or len(inputs) < 2:
            raise ValueError(
                'SelfClassifier needs two or more views of an image. Put '
                "dict(type='MultiView', num_views=[...], transforms=[...]) "
                'into the pipeline of train_dataloader.dataset.'
            )
        embeds = self.embed(inputs)
        logs = {}
        if self.queue is not None:
            indices = self.sample_indices(data_samples, inputs[0])
            first = embeds[0].detach()
            if self.queue.is_full:
                nearest = self.queue.nearest(first, indices)
                embeds = torch.cat([nearest[None], embeds[1:]])
                logs['neighbor_agreement'] = self._agreement(first, nearest)
            self.queue.push(first, indices)
        return {**self.head.loss(embeds), **logs}

    @torch.no_grad()
    def _agreement(
        self, one: torch.Tensor, other: torch.Tensor
    ) -> torch.Tensor:
        classes = [self.head.classify(x).argmax(1) for x in (one, other)]
        return 100 * (classes[0] == classes[1]).float().mean()

    def project(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Project features to the vectors that are classified.

        Args:
            feats (Sequence[Tensor]): The backbone's outputs for N images.

        Returns:
            Tensor: (N, C), float32, of length 1.
        """
        return self.neck(pool_features(feats)[-1])

    def predict_fields(
        self, inputs: torch.Tensor, feats: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Put images into the classes of the first classifier.

        Args:
            inputs (Tensor): Not read.
            feats (Sequence[Tensor]): The backbone's outputs for N images.

        Returns:
            dict[str, Tensor]: ``pred_score`` (N, classes), at the temperature
            of the predictions, and ``pred_label``, int64 (N, 1).
        """
        scores = self.head.predict(self.project(feats))
        return dict(
            pred_score=scores, pred_label=scores.argmax(1, keepdim=True)
        )
