from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import check_rotations, rotate_batch
from mm_rotssl.registry import MODELS

from .base import SelfSupervisor


@MODELS.register_module()
class RotNet(SelfSupervisor):
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
        rotations = check_rotations(rotations)
        if isinstance(head, dict):
            head = {'num_rotations': len(rotations), **head}
        super().__init__(backbone, neck, head, data_preprocessor, init_cfg)
        self.rotations = rotations
        self.rotated_by_dataset = rotated_by_dataset
        if self.head.num_rotations != len(rotations):
            raise ValueError(
                f'model.head.num_rotations={self.head.num_rotations} does '
                f'not fit model.rotations={rotations}; leave it out and it '
                'is filled in.'
            )

    def loss(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Cross entropy over the rotations.

        Args:
            inputs (Tensor): Images (N, C, S, S), float, upright, or each
                rotated once if ``rotated_by_dataset``.
            data_samples (list[DataSample], optional): Read for their
                ``rotation_label`` if ``rotated_by_dataset``, else ignored.

        Returns:
            dict[str, Tensor]: ``loss`` and ``rotation_accuracy`` (percent).

        Raises:
            ValueError: If ``rotated_by_dataset`` and a sample has no
                ``rotation_label``.
        """
        if self.rotated_by_dataset:
            labels = self.read_field(
                data_samples,
                'rotation_label',
                inputs,
                'With model.rotated_by_dataset=True the training pipeline '
                "needs dict(type='mm_rotssl.RandomRotationWithLabel') and its "
                "PackInputs algorithm_keys=('rotation_label', ).",
            )
        else:
            inputs, labels = rotate_batch(inputs, self.rotations)
        return self.head.loss(self.extract_head_inputs(inputs), labels)

    def predict_fields(
        self, inputs: torch.Tensor, feats: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Classify all rotations of each image.

        Args:
            inputs (Tensor): Upright images (N, C, S, S), float.
            feats (Sequence[Tensor]): Not read.

        Returns:
            dict[str, Tensor]: ``rotation_scores``, float32 (N, R, R): row
            ``r`` of an image holds the class probabilities of the copy
            rotated by ``rotations[r]``.
        """
        rotated, _ = rotate_batch(inputs, self.rotations)
        logits = self.head(self.extract_head_inputs(rotated))
        scores = logits.float().softmax(1)
        return dict(rotation_scores=scores.unflatten(0, (len(inputs), -1)))

    def extract_head_inputs(self, inputs: torch.Tensor) -> Any:
        """Run backbone and neck.

        Args:
            inputs (Tensor): Images (N, C, S, S), float.

        Returns:
            tuple[Tensor]: What the head gets.
        """
        feats = self.extract_feat(inputs)
        return self.neck(feats) if self.with_neck else feats
