import functools
import math
import types
from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import check_rotations, pool_features, rotate_batch
from mm_rotssl.registry import MODELS

from ..utils import set_feats, zero_loss


@MODELS.register_module()
class ESSL(BaseSelfSupervisor):
    """Any self-supervised algorithm, and rotation prediction beside it.

    Source: Dangovski et al., *Equivariant Contrastive Learning* (E-SSL), ICLR
    2022 (https://arxiv.org/abs/2111.00899). The representation is asked to be
    insensitive to the algorithm's augmentations and sensitive to four-fold
    rotation. As in the released code, one more crop of each image, a small
    one, goes through the backbone in all rotations, and a classifier of its
    own reads the backbone's features.

    What is built is the algorithm itself with a rotation head: an instance of
    its class and of this one. Names of its parts and tensors, momentum
    encoders, queues and what its hooks look for stay as they are, and a
    checkpoint's backbone goes where that of the plain algorithm does.

    Args:
        algorithm (dict | nn.Module): A self-supervised algorithm with a
            ``backbone``, one of mmpretrain or of this package.
        head (dict | nn.Module): A :class:`RotationHead`; its
            ``num_rotations`` is filled in from ``rotations``. The paper's has
            ``hid_channels=2048``.
        neck (dict | nn.Module, optional): Applied to the backbone's outputs
            before the head. Defaults to None.
        weight (float): Of the rotation loss. With 0 the extra crop is left
            out and training is that of the plain algorithm. Defaults to 0.4,
            the released code's.
        rotations (Sequence[int]): Angles in degrees, see :class:`RotNet`.
            Defaults to (0, 90, 180, 270).
        data_preprocessor (dict, optional): Of the algorithm, if that names
            none: the runner hands on that of the config. Defaults to None.

    Raises:
        ValueError: If ``weight`` is negative or not finite, or ``rotations``
            no valid list of angles.

    Examples:
        >>> simclr = dict(type='SimCLR')  # with backbone, neck and head
        >>> model = dict(
        ...     type='mm_rotssl.ESSL',
        ...     algorithm=simclr,
        ...     neck=dict(type='GlobalAveragePooling'),
        ...     head=dict(
        ...         type='mm_rotssl.RotationHead',
        ...         in_channels=512,
        ...         hid_channels=2048,
        ...     ),
        ... )
        >>> # and in the pipeline, as the last view, the crop to be rotated
        >>> multi_view = dict(
        ...     type='MultiView',
        ...     num_views=[2, 1],
        ...     transforms=[
        ...         [dict(type='mm_rotssl.RandomResizedCropFlip', scale=32)],
        ...         [dict(type='mm_rotssl.RandomResizedCropFlip', scale=16)],
        ...     ],
        ... )
    """

    def __new__(
        cls,
        algorithm: Any,
        *_: Any,
        data_preprocessor: dict | None = None,
        **__: Any,
    ) -> Any:
        """Make the algorithm, of a class that is also this one."""
        if isinstance(algorithm, dict):
            if data_preprocessor is not None:
                algorithm = {
                    'data_preprocessor': data_preprocessor,
                    **algorithm,
                }
            algorithm = MODELS.build(algorithm)
        self = _make(cls, type(algorithm))
        self.__dict__ = algorithm.__dict__
        return self

    def __reduce__(self) -> tuple:
        """Copy and pickle it by the two classes: its own has no module."""
        return _make, type(self).__bases__, self.__dict__

    def __init__(
        self,
        algorithm: dict | nn.Module,
        head: Any,
        neck: Any = None,
        weight: float = 0.4,
        rotations: Sequence[int] = (0, 90, 180, 270),
        data_preprocessor: dict | None = None,
    ) -> None:
        # `algorithm`, with its `data_preprocessor`, is self by now
        if not 0 <= weight < math.inf:
            raise ValueError(
                f'weight={weight} of ESSL must be finite and not negative.'
            )
        self.rotation_weight = weight
        self.rotations = check_rotations(rotations)
        if isinstance(head, dict):
            head = MODELS.build({'num_rotations': len(self.rotations), **head})
        if isinstance(neck, dict):
            neck = MODELS.build(neck)
        self.rotation_neck = neck
        self.rotation_head = head

    def forward(
        self,
        inputs: Any,
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Entry for training, validation and feature extraction.

        Args:
            inputs (Tensor | list[Tensor]): For 'loss' the algorithm's views
                and, last, the crop to be rotated, each (N, C, H, W); else
                images (N, C, S, S).
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
        inputs: list[torch.Tensor],
        data_samples: list[DataSample] | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """The algorithm's losses and that of the rotations.

        Args:
            inputs (list[Tensor]): The algorithm's views, then the crop to be
                rotated, (N, C, S, S).
            data_samples (list[DataSample], optional): One an image; the
                algorithm may read them. Defaults to None.
            **kwargs (Any): Of the algorithm.

        Returns:
            dict[str, Tensor]: What the algorithm gives, a ``loss`` renamed to
            ``algorithm_loss``, since the sum is logged as ``loss``;
            ``rotation_loss``, weighted, and ``rotation_accuracy`` (percent).

        Raises:
            ValueError: If there is no crop beside the views, or the algorithm
                predicts rotations itself.
        """
        if not isinstance(inputs, list) or len(inputs) < 2:
            raise ValueError(
                'ESSL needs one crop more than its algorithm, to be rotated. '
                "In the training pipeline's MultiView, add 1 to num_views "
                'and the transforms of a small crop to transforms.'
            )
        *views, crop = inputs
        losses = super().loss(
            # algorithms of a single view want a tensor
            views if len(views) > 1 else views[0],
            data_samples,
            **kwargs,
        )
        if 'rotation_accuracy' in losses:
            raise ValueError(
                f'model.algorithm, a {type(self).__bases__[-1].__name__}, '
                'predicts rotations already: train it without ESSL.'
            )
        # DenseCL's losses have names of their own
        if 'loss' in losses:
            losses['algorithm_loss'] = losses.pop('loss')
        if self.rotation_weight == 0:
            losses['rotation_loss'] = zero_loss(
                parameter
                for module in (self.rotation_neck, self.rotation_head)
                if module is not None
                for parameter in module.parameters()
            )
            return losses
        rotated, labels = rotate_batch(crop, self.rotations)
        found = self.rotation_head.loss(self._rotation_feats(rotated), labels)
        losses['rotation_loss'] = self.rotation_weight * found.pop('loss')
        losses.update(found)
        return losses

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
            list[DataSample]: What the algorithm predicts, else ``feats``; and
            ``rotation_scores``, both as :meth:`RotNet.predict` gives them.
        """
        samples = data_samples or [DataSample() for _ in inputs]
        if hasattr(super(), 'predict'):
            samples = super().predict(inputs, samples)
        else:
            set_feats(samples, pool_features(self.extract_feat(inputs)))
        rotated, _ = rotate_batch(inputs, self.rotations)
        logits = self.rotation_head(self._rotation_feats(rotated))
        scores = logits.float().softmax(1)
        scores = scores.view(len(inputs), len(self.rotations), -1)
        for i, sample in enumerate(samples):
            sample.set_field(scores[i], 'rotation_scores')
        return samples

    def _rotation_feats(self, inputs: torch.Tensor) -> Any:
        feats = self.backbone(inputs)
        if self.rotation_neck is not None:
            feats = self.rotation_neck(feats)
        return feats


@functools.cache
def _class_of(cls: type, host: type) -> type:
    return types.new_class(f'{host.__name__}WithRotation', (cls, host))


def _make(cls: type, host: type) -> Any:
    """An instance of both that has nothing yet."""
    return object.__new__(_class_of(cls, host))
