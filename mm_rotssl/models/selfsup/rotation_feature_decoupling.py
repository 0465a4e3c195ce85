from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.ops import noise_weights, rotate_batch, upright_index
from mm_rotssl.registry import MODELS

from .rotnet import RotNet

LOSSES = ('rotation', 'irrelevance', 'instance')


@MODELS.register_module()
class RotationFeatureDecoupling(RotNet):
    r"""Rotation prediction with one part of the representation only.

    The vector at the end of the network is divided. From the first part the
    rotation is predicted; the second part is drawn toward its mean
    over the rotations of an image, and the mean is to tell the image from
    all others:

    .. math::
        L = \frac{\lambda_r}{NR} \sum_{i,y} w_{i,y}\,
            \mathrm{CE}(c(f^1_{i,y}), y)
          + \frac{\lambda_m}{NRD} \sum_{i,y} \|f^2_{i,y} - \bar f_i\|^2
          + \lambda_n L_{\mathrm{NCE}}(\bar f_i),
        \quad \bar f_i = \frac{1}{R} \sum_y f^2_{i,y}.

    Without the third term the second part could be constant.

    Source: Feng, Xu and Tao, *Self-Supervised Representation Learning by
    Rotation Feature Decoupling*, CVPR 2019, and its official code, which is
    followed where the two differ: the second term is the squared distance
    divided by the dimension D (the paper writes the distance); the mean is a
    constant in it (which changes nothing, as the distances from a mean sum
    up to zero); neither is normalized. The mean is that of the second part
    alone.

    The weights w need, for each copy, the probability p of being
    *un-rotated*: w is 1 for un-rotated copies, else 1 - p^gamma. The sum is
    divided by the number of copies, not by that of the weights.
    :class:`LoadRotationNoise` in the training pipeline reads them from a file
    that ``mm-rotssl estimate-noise`` writes.

    Args:
        backbone (dict | nn.Module): See :class:`RotNet`.
        head (dict | nn.Module): A :class:`RotationHead`; its ``in_channels``
            is filled in from ``rotation_channels``.
        instance_head (dict | nn.Module): An
            :class:`InstanceDiscriminationHead`, whose ``in_channels`` is the
            length of the second part.
        rotation_channels (int): Length of the first part, 2048 of 4096 in
            the paper.
        neck (dict | nn.Module, optional): Gives the vector where the
            backbone does not, see :class:`DecouplingNeck`. Defaults to None.
        rotations (Sequence[int]): See :class:`RotNet`. Defaults to (0, 90,
            180, 270).
        loss_weights (dict[str, float], optional): The factors
            ``rotation``, ``irrelevance`` and ``instance`` of the three
            terms, 1 where not given. Defaults to None.
        noise_start_epoch (int, optional): First epoch, counted from 0, with
            weights other than 1, 210 of the official 245. Defaults to None:
            there are no weights.
        noise_gamma (float): Exponent. Defaults to 2, as in the official code.
        data_preprocessor (dict | nn.Module, optional): See :class:`RotNet`.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If a number is out of range or the parts don't fit.

    The memory bank gets its rows from the dataset by ``BindDatasetHook``.

    ``predict`` gives what :meth:`RotNet.predict_fields` does, and
    ``related_feats`` and ``unrelated_feats``, the two parts of all copies of
    an image, (R, C) each; if they are of the same length also
    ``unrelated_rotation_scores`` (R, R), what the classifier makes of the
    second.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        head: dict | nn.Module,
        instance_head: dict | nn.Module,
        rotation_channels: int,
        neck: dict | nn.Module | None = None,
        rotations: Sequence[int] = (0, 90, 180, 270),
        loss_weights: dict[str, float] | None = None,
        noise_start_epoch: int | None = None,
        noise_gamma: float = 2.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if isinstance(head, dict):
            head = {'in_channels': rotation_channels, **head}
        super().__init__(
            backbone=backbone,
            head=head,
            neck=neck,
            rotations=rotations,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if isinstance(instance_head, dict):
            instance_head = MODELS.build(instance_head)
        self.instance_head: Any = instance_head
        if self.head.in_channels != rotation_channels:
            raise ValueError(
                f'model.head.in_channels={self.head.in_channels} is not '
                f'model.rotation_channels={rotation_channels}; leave it out '
                'and it is filled in.'
            )
        unknown = [name for name in loss_weights or {} if name not in LOSSES]
        if unknown:
            raise ValueError(
                f'model.loss_weights has {", ".join(unknown)}; the losses '
                f'are {", ".join(LOSSES)}.'
            )
        if noise_gamma <= 0 or (noise_start_epoch or 0) < 0:
            raise ValueError(
                f'model.noise_gamma={noise_gamma} must be positive, and '
                f'model.noise_start_epoch={noise_start_epoch} not negative.'
            )
        if noise_start_epoch is not None:
            upright_index(self.rotations)
        self.rotation_channels = rotation_channels
        self.loss_weights = {
            **dict.fromkeys(LOSSES, 1.0),
            **(loss_weights or {}),
        }
        self.noise_start_epoch = noise_start_epoch
        self.noise_gamma = noise_gamma

    def loss(
        self,
        inputs: torch.Tensor,
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The three losses, and two accuracies.

        Args:
            inputs (Tensor): Upright images (N, C, S, S), float.
            data_samples (list[DataSample], optional): One an image, read
                for their ``sample_idx`` and, with ``noise_start_epoch``, for
                the ``rotation_noise`` of their copies, float (R,).

        Returns:
            dict[str, Tensor]: ``loss_rotation``, ``loss_irrelevance`` and
            ``loss_instance``, scalars; ``rotation_accuracy`` in percent and,
            if both parts are of the same length,
            ``unrelated_rotation_accuracy``, that of the same classifier on
            the second part.

        Raises:
            ValueError: If the images are not square, a sample lacks what is
                read of it, or the weights would never be used.
        """
        indices = self.sample_indices(data_samples, inputs)
        weight = self._weight(data_samples, inputs)
        rotated, labels = rotate_batch(inputs, self.rotations)
        related, unrelated = self._parts(rotated)
        rotation = self.head.loss((related,), labels, weight)

        copies = unrelated.float().view(len(inputs), len(self.rotations), -1)
        mean = copies.mean(1)
        terms = dict(
            rotation=rotation.pop('loss'),
            irrelevance=F.mse_loss(
                copies, mean.detach()[:, None].expand_as(copies)
            ),
            instance=self.instance_head.loss(mean, indices)['loss'],
        )
        logs = {
            f'loss_{name}': self.loss_weights[name] * term
            for name, term in terms.items()
        }
        logs.update(rotation)
        if unrelated.shape == related.shape:
            with torch.no_grad():
                hits = self.head((unrelated,)).argmax(1) == labels
            logs['unrelated_rotation_accuracy'] = 100 * hits.float().mean()
        return logs

    def predict_fields(
        self, inputs: torch.Tensor, feats: Sequence[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Classify all rotations of each image by either part.

        Args:
            inputs (Tensor): Upright images (N, C, S, S), float.
            feats (Sequence[Tensor]): Not read.

        Returns:
            dict[str, Tensor]: See the class; each (N, R, ...), float32.
        """
        rotated, _ = rotate_batch(inputs, self.rotations)
        related, unrelated = self._parts(rotated)
        fields = dict(
            rotation_scores=self.head((related,)).float().softmax(1),
            related_feats=related.float(),
            unrelated_feats=unrelated.float(),
        )
        if unrelated.shape == related.shape:
            scores = self.head((unrelated,)).float().softmax(1)
            fields['unrelated_rotation_scores'] = scores
        return {
            name: rows.unflatten(0, (len(inputs), -1))
            for name, rows in fields.items()
        }

    def project(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """The part of the features that instances are told apart by.

        Args:
            feats (Sequence[Tensor]): The backbone's outputs for N images.

        Returns:
            Tensor: (N, C), not normalized.
        """
        vectors = (self.neck(feats) if self.with_neck else feats)[-1]
        return self._split(vectors)[1]

    def _parts(self, rotated: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._split(self.extract_head_inputs(rotated)[-1])

    def _split(self, vectors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = (self.rotation_channels, self.instance_head.in_channels)
        if vectors.dim() != 2 or vectors.size(1) != sum(parts):
            raise ValueError(
                f'RotationFeatureDecoupling divides a vector into {parts[0]} '
                f'(model.rotation_channels) + {parts[1]} '
                '(model.instance_head.in_channels) numbers, and the network '
                f'gave the shape {tuple(vectors.shape)}. Fit these, or add '
                "model.neck=dict(type='mm_rotssl.DecouplingNeck', "
                f'in_channels=..., out_channels={sum(parts)}).'
            )
        return vectors.split(parts, dim=1)

    def _weight(
        self, data_samples: list[DataSample] | None, inputs: torch.Tensor
    ) -> torch.Tensor | None:
        """Weights of the copies, (N * R,), in this epoch."""
        if self.noise_start_epoch is None:
            return None
        probabilities = self.read_field(
            data_samples,
            'rotation_noise',
            inputs,
            'With model.noise_start_epoch the training pipeline needs '
            "dict(type='mm_rotssl.LoadRotationNoise', file=...) and its "
            "PackInputs algorithm_keys=('rotation_noise', ).",
        )
        hub = MessageHub.get_current_instance()
        last = hub.get_info('max_epochs')
        # without a file all are 0, and so are all weights 1
        if (
            last is not None
            and self.noise_start_epoch >= last
            and probabilities.any()
        ):
            raise ValueError(
                f'model.noise_start_epoch={self.noise_start_epoch}, but the '
                f'run ends after train_cfg.max_epochs={last}: noise weights '
                'would never be used. Set it lower, or to None.'
            )
        if hub.get_info('epoch', 0) < self.noise_start_epoch:
            return None
        weights = noise_weights(
            probabilities, self.rotations, self.noise_gamma
        )
        return weights.flatten()
