from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import check_rotations, pool_features, rotate_batch
from mm_rotssl.registry import MODELS

from ..utils import set_feats


@MODELS.register_module()
class RotNet(BaseSelfSupervisor):
    """Self-supervision by predicting image rotations.

    Source: Gidaris, Singh and Komodakis, *Unsupervised Representation
    Learning by Predicting Image Rotations*, ICLR 2018
    (https://arxiv.org/abs/1803.07728), equations 2 and 3.

    As in the official code all rotations of an image are in the same batch,
    interleaved, and go through the network in one pass; N images make
    N * R rows. They are made here, on the device, from the N images that
    the workers sent.

    Args:
        backbone (dict | nn.Module): Any backbone whose last output is a map
            (with a pooling ``neck``) or a vector.
        head (dict | nn.Module): A :class:`RotationHead`; its
            ``num_rotations`` is filled in from ``rotations``.
        neck (dict | nn.Module, optional): Applied to the backbone's outputs
            before the head. Defaults to None.
        rotations (Sequence[int]): Angles in degrees, counter-clockwise; the
            label is the position in this list. (0, 90, 180, 270), (0, 180),
            (90, 270) and the eight multiples of 45 are the paper's ablation;
            see :func:`rotate_batch` for how the latter is kept from leaking
            the answer. Defaults to (0, 90, 180, 270).
        rotated_by_dataset (bool): The pipeline holds a
            ``RandomRotationWithLabel`` with the same ``rotations``: one
            labeled random rotation per image instead of all. Defaults to
            False.
        data_preprocessor (dict | nn.Module, optional): Defaults to
            mmpretrain's ``SelfSupDataPreprocessor``.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If ``rotations`` is no valid list of angles or does not
            fit the head.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        rotations: Sequence[int] = (0, 90, 180, 270),
        rotated_by_dataset: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        self_rotations = check_rotations(rotations)
        if isinstance(head, dict):
            head = dict(head)
            head.setdefault('num_rotations', len(self_rotations))
        if data_preprocessor is None or isinstance(data_preprocessor, dict):
            # the host's bare default name resolves in mmpretrain's scope only
            data_preprocessor = {
                'type': 'mmpretrain.SelfSupDataPreprocessor',
                **(data_preprocessor or {}),
            }
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.rotations = self_rotations
        self.rotated_by_dataset = rotated_by_dataset
        if self.head.num_rotations != len(self.rotations):
            raise ValueError(
                f'model.head.num_rotations={self.head.num_rotations} does '
                f'not fit model.rotations={self.rotations}; leave it out and '
                'it is filled in.'
            )

    def forward(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Entry for training, validation and feature extraction.

        Args:
            inputs (Tensor): Images (N, C, S, S), float.
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
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Cross entropy over the rotations.

        Args:
            inputs (Tensor): Images (N, C, S, S), float, upright, or each
                turned once if ``rotated_by_dataset``.
            data_samples (list[DataSample], optional): Read for their
                ``rotation_label`` if ``rotated_by_dataset``, else ignored.

        Returns:
            dict[str, Tensor]: ``loss`` and ``rotation_accuracy`` (percent).

        Raises:
            KeyError: If ``rotated_by_dataset`` and a sample has no
                ``rotation_label``.
        """
        if self.rotated_by_dataset:
            labels = self._dataset_labels(data_samples or [], inputs.device)
        else:
            inputs, labels = rotate_batch(inputs, self.rotations)
        return self.head.loss(self._head_inputs(inputs), labels)

    def predict(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
    ) -> list[DataSample]:
        """Classify all rotations of each image and extract its features.

        Args:
            inputs (Tensor): Upright images (N, C, S, S), float.
            data_samples (list[DataSample], optional): One an image; new
                ones are made if None.

        Returns:
            list[DataSample]: The samples with ``rotation_scores``, float
            (R, R): row ``r`` holds the class probabilities of the copy
            turned by ``rotations[r]``; and ``feats``, a tuple with a vector
            (C,) for each of the backbone's outputs, from the upright
            image.
        """
        rotated, _ = rotate_batch(inputs, self.rotations)
        fields = {
            name: rows.float().view(len(inputs), len(self.rotations), -1)
            for name, rows in self._predict_copies(rotated).items()
        }
        samples = data_samples or [DataSample() for _ in inputs]
        set_feats(samples, pool_features(self.extract_feat(inputs)))
        for i, sample in enumerate(samples):
            for name, rows in fields.items():
                sample.set_field(rows[i], name)
        return samples

    def _predict_copies(
        self, rotated: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Fields of the samples -> their rows (N * R, ...)."""
        return dict(rotation_scores=self._scores(self._head_inputs(rotated)))

    def _scores(self, feats: Any) -> torch.Tensor:
        return self.head(feats).float().softmax(1)

    def _head_inputs(self, inputs: torch.Tensor) -> Any:
        feats = self.extract_feat(inputs)
        return self.neck(feats) if self.with_neck else feats

    @staticmethod
    def _dataset_labels(
        data_samples: list[DataSample], device: torch.device
    ) -> torch.Tensor:
        if not all('rotation_label' in sample for sample in data_samples):
            raise KeyError(
                'model.rotated_by_dataset=True, but a sample has no '
                "rotation_label. Put dict(type='mm_rotssl."
                "RandomRotationWithLabel') into the training pipeline and "
                "algorithm_keys=('rotation_label', ) into its PackInputs."
            )
        return torch.tensor(
            [sample.rotation_label for sample in data_samples], device=device
        )
