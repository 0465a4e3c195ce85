import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from mm_rotssl.registry import MODELS

from ..utils import cluster_usage


@MODELS.register_module()
class SelfClassifierHead(BaseModule):
    r"""Linear classifiers whose classes are found in training.

    Each has weights of a direction and a length: :math:`s_y = g_y
    \frac{v_y}{\|v_y\|} x`, no biases. The lengths start at 1.

    Source: Amrani, Karlinsky and Bronstein, *Self-Supervised Classification
    Network*, ECCV 2022 (https://arxiv.org/abs/2103.10994), and the authors'
    code, in which the lengths are learned, although other methods with such
    heads keep them at 1.

    Args:
        in_channels (int): Length of the embeddings.
        num_classes (Sequence[int]): Classes of each classifier. The first
            gives predictions and logged values. Defaults to (1000, 2000, 4000,
            8000).
        fixed (bool): Keep the classifiers as they are initialized, and train
            only what comes before them, as ``--fixed-cls`` of the authors'
            code does. Defaults to False.
        loss (dict | nn.Module, optional): Settings of
            :class:`UniformPriorCrossEntropy`, or a module that takes logits
            (V, B, C) of V views and has its ``num_global`` and
            ``row_temperature``. Defaults to None.
        init_cfg (dict, optional): Checkpoint to load, of type Pretrained.
            Other types have no effect on weights that are computed from
            directions and lengths. Defaults to None, PyTorch's default for a
            linear layer.

    Raises:
        ValueError: If there is no classifier or one has less than two
            classes.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: Sequence[int] = (1000, 2000, 4000, 8000),
        fixed: bool = False,
        loss: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if in_channels < 1 or not num_classes or min(num_classes) < 2:
            raise ValueError(
                f'in_channels={in_channels} of SelfClassifierHead must be '
                f'positive, and num_classes={num_classes} one or more '
                'numbers of at least 2.'
            )
        self.in_channels = in_channels
        self.num_classes = tuple(num_classes)
        self.classifiers = nn.ModuleList()
        for count in num_classes:
            classifier = weight_norm(nn.Linear(in_channels, count, bias=False))
            nn.init.ones_(classifier.parametrizations.weight.original0)
            classifier.requires_grad_(not fixed)
            self.classifiers.append(classifier)
        if not isinstance(loss, nn.Module):
            loss = MODELS.build(
                {'type': 'mm_rotssl.UniformPriorCrossEntropy', **(loss or {})}
            )
        self.loss_module: Any = loss

    def classify(self, feats: torch.Tensor, number: int = 0) -> torch.Tensor:
        """Scores of one classifier.

        Args:
            feats (Tensor): Embeddings (..., in_channels).
            number (int): Index of the classifier. Defaults to 0.

        Returns:
            Tensor: (..., C), float32.
        """
        # Scores up to 1 have steps of 0.004 in bfloat16, far too coarse once
        # they are divided by a temperature of 0.05.
        with torch.autocast(feats.device.type, enabled=False):
            return self.classifiers[number](feats.float())

    def forward(self, feats: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Scores of all classifiers.

        Args:
            feats (Tensor): Embeddings (..., in_channels).

        Returns:
            tuple[Tensor, ...]: (..., C) of each, float32.
        """
        return tuple(
            self.classify(feats, i) for i in range(len(self.classifiers))
        )

    def loss(self, feats: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss, and signs of a collapse.

        Args:
            feats (Tensor): Embeddings of the views (V, B, in_channels),
                global ones first.

        Returns:
            dict[str, Tensor]: ``loss``, the mean over the classifiers,
            float32. To be logged: ``chance_ratio``, the loss divided by the
            mean of ln C, 1 in a collapse; and of the first classifier on
            the last global view of all processes ``classes_in_use``, and
            ``marginal_entropy``, the entropy of the mean prediction divided
            by ln C, 1 if all classes are equally large.
        """
        logits = self(feats)
        loss = torch.stack([self.loss_module(x) for x in logits]).mean()
        chance = sum(map(math.log, self.num_classes)) / len(self.num_classes)
        watched = logits[0][self.loss_module.num_global - 1].detach()
        return dict(
            loss=loss,
            chance_ratio=loss.detach() / chance,
            **cluster_usage(self._probabilities(watched)),
        )

    def _probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        return (scores / self.loss_module.row_temperature).softmax(1)

    def predict(self, feats: torch.Tensor) -> torch.Tensor:
        """Probabilities of the first classifier's classes.

        Args:
            feats (Tensor): Embeddings (M, in_channels).

        Returns:
            Tensor: (M, C), float32, at the temperature of the predictions.
        """
        return self._probabilities(self.classify(feats))
