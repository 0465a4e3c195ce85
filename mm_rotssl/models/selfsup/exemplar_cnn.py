from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import pool_features
from mm_rotssl.registry import MODELS

from ..utils import set_feats


@MODELS.register_module()
class ExemplarCNN(BaseSelfSupervisor):
    """Self-supervision by telling seed patches apart, however deformed.

    Source: Dosovitskiy, Fischer, Springenberg, Riedmiller and Brox,
    *Discriminative Unsupervised Feature Learning with Exemplar Convolutional
    Neural Networks*, NIPS 2014 and TPAMI 2016
    (https://arxiv.org/abs/1406.6909).

    Args:
        backbone (dict | nn.Module): Any backbone whose last output is a map
            (with a pooling ``neck``) or a vector.
        head (dict | nn.Module): An :class:`ExemplarHead`.
        neck (dict | nn.Module, optional): Applied to the backbone's outputs
            before the head. Defaults to None.
        data_preprocessor (dict | nn.Module, optional): Defaults to
            :class:`DeformationDataPreprocessor`.
        init_cfg (dict, optional): Initialization. Defaults to None.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if data_preprocessor is None or isinstance(data_preprocessor, dict):
            data_preprocessor = {
                'type': 'mm_rotssl.DeformationDataPreprocessor',
                **(data_preprocessor or {}),
            }
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if self.head.num_sampled is not None:
            # the head averages their sparse gradients itself; not every
            # backend could
            self._ddp_params_and_buffers_to_ignore = [
                f'head.{name}' for name, _ in self.head.named_parameters()
            ]

    def forward(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Entry for training, validation and feature extraction.

        Args:
            inputs (Tensor): Images (N, C, H, W), float.
            data_samples (list[DataSample], optional): One an image.
                Defaults to None.
            mode (str): 'tensor', 'loss' or 'predict'. Defaults to 'tensor'.

        Returns:
            tuple[Tensor] | dict[str, Tensor] | list[DataSample]: The
            backbone's outputs, the losses, or see :meth:`predict`.
        """
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def loss(
        self, inputs: torch.Tensor, data_samples: list[DataSample]
    ) -> dict[str, torch.Tensor]:
        """Cross entropy over the seed patches.

        Args:
            inputs (Tensor): Deformed patches (N, C, S, S), float.
            data_samples (list[DataSample]): Read for their
                ``exemplar_label``; other labels are ignored.

        Returns:
            dict[str, Tensor]: See :meth:`ExemplarHead.loss`.

        Raises:
            KeyError: If there are no samples, or one has no
                ``exemplar_label``.
            IndexError: If one is beyond the classes of the head.
        """
        if not data_samples or not all(
            'exemplar_label' in sample for sample in data_samples
        ):
            raise KeyError(
                'A sample has no exemplar_label. Train on '
                "dict(type='mm_rotssl.ExemplarDataset', ...) and put "
                "algorithm_keys=('exemplar_label', 'deformation') into the "
                'PackInputs of its pipeline.'
            )
        labels = [sample.exemplar_label for sample in data_samples]
        if max(labels) >= self.head.num_exemplars:
            raise IndexError(
                f'There is a seed {max(labels)}, and model.head.num_exemplars='
                f'{self.head.num_exemplars}. Set it to the number of seed '
                'patches of '
                'train_dataloader.dataset.'
            )
        feats = self.extract_feat(inputs)
        if self.with_neck:
            feats = self.neck(feats)
        return self.head.loss(
            feats, torch.tensor(labels, device=inputs.device)
        )

    def predict(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
    ) -> list[DataSample]:
        """Extract the features of images.

        Args:
            inputs (Tensor): Images (N, C, H, W), float.
            data_samples (list[DataSample], optional): One an image; new
                ones are made if None.

        Returns:
            list[DataSample]: The samples with ``feats``, a tuple with a
            vector (C,) for each of the backbone's outputs.
        """
        samples = data_samples or [DataSample() for _ in inputs]
        set_feats(samples, pool_features(self.extract_feat(inputs)))
        return samples
