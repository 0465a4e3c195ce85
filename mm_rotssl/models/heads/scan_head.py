from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import nn

from mm_rotssl.ops import at_least_float32
from mm_rotssl.registry import MODELS

from ..losses.scan_loss import scan_loss
from ..utils import cluster_usage

# of the mean loss that classifiers are chosen by, a step
MOMENTUM = 0.99


@MODELS.register_module()
class ScanHead(BaseModule):
    r"""Linear classifiers whose classes are found without labels.

    They differ in their first weights only. The one with the lowest loss,
    number ``best``, predicts: :math:`\lambda` is 1 there, as in the authors'
    code, which would otherwise prefer equal sizes to agreement; the loss is
    a moving mean over the training steps, theirs that of the test images'
    neighbors at the end of an epoch.

    Source: Van Gansbeke et al., *SCAN: Learning to Classify Images without
    Labels*, ECCV 2020 (https://arxiv.org/abs/2005.12320).

    Args:
        in_channels (int): Length of the vectors that come in.
        num_classes (int): C.
        num_heads (int): Number of classifiers; the authors have 10 on
            ImageNet, elsewhere 1. Defaults to 1.
        entropy_weight (float): :math:`\lambda`, see :func:`scan_loss`.
            Defaults to 5.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If a number is not positive.
    """

    #: Mean loss of each classifier, float32 (heads,).
    mean_losses: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_heads: int = 1,
        entropy_weight: float = 5.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if min(in_channels, num_classes, num_heads) < 1 or entropy_weight <= 0:
            raise ValueError(
                f'in_channels={in_channels}, num_classes={num_classes}, '
                f'num_heads={num_heads} and entropy_weight={entropy_weight} '
                'of ScanHead must be positive.'
            )
        self.entropy_weight = entropy_weight
        self.classifiers: Any = nn.ModuleList(
            nn.Linear(in_channels, num_classes) for _ in range(num_heads)
        )
        self.register_buffer('mean_losses', torch.zeros(num_heads))

    @property
    def best(self) -> int:
        """Number of the classifier with the lowest loss."""
        return int(self.mean_losses.argmin())

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Classify vectors by the best classifier.

        Args:
            feats (Tensor): (M, in_channels).

        Returns:
            Tensor: Logits (M, C), float32.
        """
        logits: torch.Tensor = at_least_float32(
            self.classifiers[self.best](feats)
        )
        return logits

    def loss(
        self, anchors: torch.Tensor, neighbors: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Compare images with their neighbors.

        Args:
            anchors (Tensor): Features of the images, (B, in_channels), B
                the same on all processes.
            neighbors (Tensor): Of a neighbor of each.

        Returns:
            dict[str, Tensor]: ``loss``, the sum over the classifiers,
            float32. To be logged, of the best classifier: ``consistency`` and
            ``entropy``, see :func:`scan_loss`, and see
            :func:`cluster_usage`.
        """
        losses, logs = [], []
        for classifier in self.classifiers:
            own, other = classifier(anchors), classifier(neighbors)
            loss, log = scan_loss(own, other, self.entropy_weight)
            losses.append(loss)
            usage = cluster_usage(own.detach().float().softmax(1))
            logs.append({**log, **usage})
        if self.training:
            found = torch.stack(
                [log['consistency'] - log['entropy'] for log in logs]
            )
            all_reduce(found, 'mean')
            self.mean_losses.lerp_(found, 1 - MOMENTUM)
        return dict(loss=torch.stack(losses).sum(), **logs[self.best])

    def self_label_loss(
        self,
        weak: torch.Tensor,
        strong: torch.Tensor,
        threshold: float,
        balanced: bool,
    ) -> dict[str, torch.Tensor]:
        """Learn what the best classifier is sure of.

        Args:
            weak (Tensor): Features of the images as they are,
                (B, in_channels), without gradient.
            strong (Tensor): Features of the images, changed.
            threshold (float): Probability above which it is sure.
            balanced (bool): Let each class that occurs have the same share of
                the loss.

        Returns:
            dict[str, Tensor]: ``loss``, float32, the mean over the sure
            images of all processes; without any it is 0, with gradients of
            0. To be logged ``confident``, their share of the images in
            percent, and see :func:`cluster_usage`.
        """
        with torch.no_grad():
            scores = self(weak).softmax(1)
            surest, labels = scores.max(1)
            sure = surest > threshold
            counts = labels[sure].bincount(minlength=scores.size(1)).float()
            all_reduce(counts)
            weights = torch.ones_like(counts)
            if balanced:
                weights = counts.sum() / counts.clamp(min=1)
            total = (weights * counts).sum()
            size = torch.tensor(float(len(sure)), device=total.device)
            all_reduce(size)
        rows = F.cross_entropy(self(strong), labels, reduction='none')
        # each process has its part of the mean of all, as many times as
        # there are processes: DistributedDataParallel takes their mean
        share = get_world_size() / total.clamp(min=1)
        return dict(
            loss=(rows * weights[labels] * sure).sum() * share,
            confident=100 * counts.sum() / size,
            **cluster_usage(scores),
        )
