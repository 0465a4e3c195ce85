from collections.abc import Sequence

import torch
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import pool_features
from mm_rotssl.registry import MODELS

from .base import SelfSupervisor


@MODELS.register_module()
class NPID(SelfSupervisor):
    """Non-parametric instance discrimination: every image is its own class.

    The classifier's weights are a memory bank with the moving mean of each
    image's embeddings; an image has one view a step.

    Source: Wu, Xiong, Yu and Lin, *Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination*, CVPR 2018
    (https://arxiv.org/abs/1805.01978), and the authors' code,
    https://github.com/zhirongw/lemniscate.pytorch.

    Args:
        backbone (dict | nn.Module): Any backbone; of its last output, a map
            is averaged.
        head (dict | nn.Module): An :class:`InstanceDiscriminationHead`. In
            settings that leave it out, all images are compared by a cross
            entropy, as in the authors' recipe for CIFAR-10: their NCE
            diverges on small datasets, see :class:`NCELoss`. From about
            100,000 images on ``num_negatives=65536`` is faster.
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
        if isinstance(head, dict):
            head = {
                'type': 'mm_rotssl.InstanceDiscriminationHead',
                'num_negatives': None,
                'loss': dict(type='mmpretrain.CrossEntropyLoss'),
                **head,
            }
        super().__init__(
            backbone,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )

    def loss(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Tell each image from the others, and update the bank.

        Args:
            inputs (Tensor): A view of each image, (N, C, H, W), float.
            data_samples (list[DataSample], optional): One an image, read
                for their ``sample_idx``.

        Returns:
            dict[str, Tensor]: See :meth:`InstanceDiscriminationHead.loss`.

        Raises:
            ValueError: If there are several views, or an image has no
                ``sample_idx``.
        """
        if not isinstance(inputs, torch.Tensor):
            raise ValueError(
                f'NPID takes one view of an image, got {len(inputs)}. Leave '
                'MultiView out of the pipeline of train_dataloader.dataset.'
            )
        indices = self.sample_indices(data_samples, inputs)
        return self.head.loss(self._pool(self.extract_feat(inputs)), indices)

    @staticmethod
    def _pool(feats: Sequence[torch.Tensor]) -> torch.Tensor:
        return pool_features(feats)[-1]

    def project(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Project features to the vectors that the bank holds.

        Args:
            feats (Sequence[Tensor]): The backbone's outputs for N images.

        Returns:
            Tensor: (N, C), float32, of length 1.
        """
        return self.head(self._pool(feats))
