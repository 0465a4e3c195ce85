from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from sklearn.metrics import normalized_mutual_info_score
from torch import nn

from mm_rotssl.ops import at_least_float32, pool_features
from mm_rotssl.registry import MODELS

from ..memories import LabelBank
from .base import SelfSupervisor


@MODELS.register_module()
class PseudoLabel(SelfSupervisor):
    """Label the images by their features, and learn the labels, in turn.

    :class:`RelabelHook` makes the labels, now and then; between, the network
    learns them like real ones. Three methods differ in how labels are made:

    - DeepCluster (Caron et al., *Deep Clustering for Unsupervised Learning
      of Visual Features*, ECCV 2018, https://arxiv.org/abs/1807.05520): by
      k-means on whitened features (``KMeansLabeler``), a new classifier each
      time (``reset_head``). Its code draws images so that clusters count
      alike, or means to: what it draws goes by another order than the labels.
      Here the loss is weighted (``balanced`` of the head).
    - DeepCluster-v2 (Caron et al., *Unsupervised Learning of Visual Features
      by Contrasting Cluster Assignments*, NeurIPS 2020, appendix,
      https://arxiv.org/abs/2006.09882): by spherical k-means on what the
      network embedded in the epoch before (``memory``), whose centroids are
      the classifier (``prototypes`` of the head).
    - SeLa (Asano, Rupprecht and Vedaldi, *Self-labelling via Simultaneous
      Clustering and Representation Learning*, ICLR 2020,
      https://arxiv.org/abs/1911.05371): by the classifiers' own predictions
      under the condition that classes are equally large
      (``SinkhornLabeler``).

    Args:
        backbone (dict | nn.Module): Any backbone; of its last output, a map
            is averaged.
        head (dict | nn.Module): A :class:`PseudoLabelHead`.
        labeler (dict | nn.Module): A :class:`KMeansLabeler` or
            :class:`SinkhornLabeler`.
        neck (dict | nn.Module, optional): One of mmpretrain's that takes
            pooled features, such as ``NonLinearNeck`` with
            ``with_avg_pool=False``. Defaults to None.
        memory (dict, optional): A :class:`MemoryBank` without momentum, of
            which there is one for each of ``crops_for_assign``: embeddings of
            the last epoch, of which labels are made. The classifiers take
            turns. Defaults to None: features come from a pass over the
            images.
        crops_for_assign (Sequence[int]): Numbers of the views, from 0, that
            are kept in memory. Defaults to (0, 1).
        reset_head (bool): Draw the classifiers' weights anew whenever their
            labels are. Defaults to False.
        data_preprocessor (dict | nn.Module, optional): Defaults to
            mmpretrain's ``SelfSupDataPreprocessor``.
        init_cfg (dict, optional): Initialization. Defaults to None.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        labeler: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        memory: dict | None = None,
        crops_for_assign: Sequence[int] = (0, 1),
        reset_head: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(backbone, neck, head, data_preprocessor, init_cfg)
        if isinstance(labeler, dict):
            labeler = MODELS.build(labeler)
        self.labeler: Any = labeler
        self.bank = LabelBank(len(self.head.num_classes))
        self.crops_for_assign = tuple(crops_for_assign) if memory else (0,)
        settings = {
            'type': 'mm_rotssl.MemoryBank',
            'momentum': 0.0,
            **(memory or {}),
        }
        self.memories: Any = nn.ModuleList(
            MODELS.build(settings) for _ in self.crops_for_assign if memory
        )
        self.reset_head = reset_head

    def embed(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Embed views.

        Args:
            views (Sequence[Tensor]): V times (B, C, H, W).

        Returns:
            Tensor: (V, B, D), of length 1 where the classifiers' weights are
            prototypes.
        """
        return self._project(self.pool_views(views)).unflatten(
            0, (len(views), -1)
        )

    def _project(self, pooled: torch.Tensor) -> torch.Tensor:
        if self.with_neck:
            (pooled,) = self.neck((pooled,))
        if self.head.prototypes:
            pooled = F.normalize(at_least_float32(pooled), dim=1)
        return pooled

    def loss(
        self,
        inputs: torch.Tensor | list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Cross entropy of each view with the labels of its image.

        Args:
            inputs (Tensor | list[Tensor]): One or V views of each image,
                (B, C, H, W).
            data_samples (list[DataSample], optional): One an image, read
                for their ``sample_idx``.

        Returns:
            dict[str, Tensor]: See :meth:`PseudoLabelHead.loss`.

        Raises:
            ValueError: If an image has no ``sample_idx``, or there are fewer
                views than are kept.
            RuntimeError: If there are no labels yet.
        """
        views = [inputs] if isinstance(inputs, torch.Tensor) else inputs
        if max(self.crops_for_assign) >= len(views):
            raise ValueError(
                f'crops_for_assign={self.crops_for_assign} of PseudoLabel, '
                f'and an image has {len(views)} views. Put '
                "dict(type='MultiView', num_views=[...], transforms=[...]) "
                'into the pipeline of train_dataloader.dataset.'
            )
        indices = self.sample_indices(data_samples, views[0])
        labels = self.bank.read(indices)
        embeds = self.embed(views)
        for memory, crop in zip(
            self.memories, self.crops_for_assign, strict=False
        ):
            memory.update(indices, embeds[crop].detach())
        return self.head.loss(
            embeds.flatten(0, 1), labels.repeat(1, len(views))
        )

    @torch.no_grad()
    def relabel(
        self,
        feats: torch.Tensor,
        indices: torch.Tensor,
        heads: Sequence[int],
        seed: Sequence[int],
    ) -> dict[str, float]:
        """Make new labels of the images of all processes.

        Args:
            feats (Tensor): Embeddings of this process's images, of each of
                ``crops_for_assign``, (A, N, D); classifiers take turns.
            indices (Tensor): Places of the images in the dataset, int64 (N,).
            heads (Sequence[int]): Numbers of the classifiers to do it for.
            seed (Sequence[int]): The same on all processes.

        Returns:
            dict[str, float]: Of the first of them ``clusters_in_use``,
            ``largest_cluster``, its share of the images in percent, and
            ``nmi_to_previous``, how far the labels are as they were, in
            percent, if there were some.
        """
        before = self.bank.labels[heads[0]].cpu().numpy().copy()
        for number in heads:
            rng = np.random.default_rng((*seed, number))
            labels, centroids = self.labeler(
                feats[number % len(feats)], indices, self.head, number, rng
            )
            self.bank.write(number, indices, labels)
            self.head.set_weights(number, self.bank.labels[number])
            if self.head.prototypes:
                self.head.set_prototypes(number, centroids)
            if self.reset_head:
                generator = torch.Generator()
                generator.manual_seed(int(rng.integers(2**62)))
                self.head.reset(number, generator)
        after = self.bank.labels[heads[0]].cpu().numpy()
        counts = np.bincount(after[after >= 0])
        found = dict(
            clusters_in_use=float((counts > 0).sum()),
            largest_cluster=100 * float(counts.max() / counts.sum()),
        )
        known = (before >= 0) & (after >= 0)
        if known.any():
            found['nmi_to_previous'] = 100 * float(
                normalized_mutual_info_score(before[known], after[known])
            )
        return found

    def project(self, feats: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Project features to the vectors that are clustered.

        Args:
            feats (Sequence[Tensor]): The backbone's outputs for N images.

        Returns:
            Tensor | None: (N, D); None without a neck, where they are the
            features.
        """
        if not self.with_neck:
            return None
        return self._project(pool_features(feats)[-1])

    def predict_fields(
        self, inputs: torch.Tensor, feats: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Put images into the classes of the first classifier.

        Args:
            inputs (Tensor): Not read.
            feats (Sequence[Tensor]): The backbone's outputs for N images.

        Returns:
            dict[str, Tensor]: ``pred_score`` (N, classes) and
            ``pred_label``, int64 (N, 1).
        """
        scores = self.head.predict(self._project(pool_features(feats)[-1]))
        return dict(
            pred_score=scores, pred_label=scores.argmax(1, keepdim=True)
        )
