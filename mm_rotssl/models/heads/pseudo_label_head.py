import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import nn

from mm_rotssl.ops import at_least_float32
from mm_rotssl.registry import MODELS

from ..memories.label_bank import UNLABELED


@MODELS.register_module()
class PseudoLabelHead(BaseModule):
    r"""Linear classifiers that learn pseudo-labels by cross entropy.

    With the logits :math:`s_h` of the classifiers h and labels :math:`y_h`

    .. math:: L = \frac{1}{H} \sum_h \frac{1}{N} \sum_n w_h(y_{hn})
        \big(\ln \sum_k e^{s_{hnk} / T} - s_{h n y_{hn}} / T\big),

    the mean over the labeled rows of all processes. All w are 1, or with
    ``balanced`` those that give each class the same share of the loss,
    however many images it has: N / (K n), with the number of images that are
    labeled, of classes that occur, and of images of the class.

    Args:
        in_channels (int): Length of the vectors that come in.
        num_classes (int | Sequence[int]): Classes of each classifier.
        temperature (float): T. Defaults to 1.
        prototypes (bool): The weights are centroids of length 1, set when
            labels are made and never learned, without biases. Defaults to
            False.
        balanced (bool): See above. Defaults to False.
        init_std (float, optional): Standard deviation of the first weights,
            normal, with biases of 0; 0.01 in the code of DeepCluster.
            Defaults to None, PyTorch's own, as in that of SeLa.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int | Sequence[int],
        temperature: float = 1.0,
        prototypes: bool = False,
        balanced: bool = False,
        init_std: float | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if isinstance(num_classes, int):
            num_classes = (num_classes,)
        if (
            in_channels < 1
            or not num_classes
            or min(num_classes) < 1
            or temperature <= 0
        ):
            raise ValueError(
                f'in_channels={in_channels}, num_classes={num_classes} and '
                f'temperature={temperature} of PseudoLabelHead must be '
                'positive.'
            )
        self.num_classes = tuple(num_classes)
        self.temperature = temperature
        self.prototypes = prototypes
        self.balanced = balanced
        self.init_std = init_std
        self.classifiers: Any = nn.ModuleList(
            nn.Linear(in_channels, count, bias=not prototypes)
            for count in num_classes
        )
        for head, count in enumerate(num_classes):
            self.reset(head)
            self.register_buffer(f'weights{head}', torch.ones(count))
        if prototypes:
            self.classifiers.requires_grad_(False)

    @torch.no_grad()
    def reset(
        self, head: int, generator: torch.Generator | None = None
    ) -> None:
        """Draw the weights of a classifier anew.

        Args:
            head (int): Its number.
            generator (Generator, optional): On the CPU. Defaults to None,
                PyTorch's own.
        """
        classifier: Any = self.classifiers[head]
        for name, values in classifier.named_parameters():
            drawn = torch.empty(values.shape)
            if self.init_std is None:
                bound = classifier.in_features**-0.5
                drawn.uniform_(-bound, bound, generator=generator)
            elif name == 'weight':
                drawn.normal_(0, self.init_std, generator=generator)
            else:
                drawn.zero_()
            values.copy_(drawn)

    @torch.no_grad()
    def set_prototypes(self, head: int, centroids: torch.Tensor) -> None:
        """Replace the weights of a classifier.

        Args:
            head (int): Its number.
            centroids (Tensor): (K, in_channels).
        """
        self.classifiers[head].weight.copy_(centroids)

    @torch.no_grad()
    def set_weights(self, head: int, labels: torch.Tensor) -> None:
        """Compute the weights of the classes, if they are to be balanced.

        Args:
            head (int): Number of the classifier.
            labels (Tensor): Of all images, int64 (n,).
        """
        if not self.balanced:
            return
        labels = labels[labels != UNLABELED]
        counts = labels.bincount(minlength=self.num_classes[head])
        used = (counts > 0).sum()
        weights = len(labels) / (used * counts.clamp(min=1))
        getattr(self, f'weights{head}').copy_(weights * (counts > 0))

    def forward(self, feats: torch.Tensor) -> list[torch.Tensor]:
        """Classify vectors.

        Args:
            feats (Tensor): (M, in_channels).

        Returns:
            list[Tensor]: Logits (M, K) of each classifier, float32, divided
            by the temperature.
        """
        return [
            at_least_float32(classifier(feats)) / self.temperature
            for classifier in self.classifiers
        ]

    def loss(
        self, feats: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Cross entropy with the pseudo-labels.

        Args:
            feats (Tensor): (M, in_channels).
            labels (Tensor): Of each classifier, int64 (H, M); -100 for rows
                that do not count.

        Returns:
            dict[str, Tensor]: ``loss``, float32; if no row counts it is 0,
            with gradients of 0. To be logged: ``chance_ratio``, the loss
            divided by the mean of ln K, and ``label_accuracy``, how many rows
            of this process the first classifier gets right, in percent.
        """
        logits = self(feats)
        losses = []
        for head, (scores, wanted) in enumerate(
            zip(logits, labels, strict=True)
        ):
            known = wanted != UNLABELED
            count = known.sum().float()
            all_reduce(count)
            # 0 for rows without a label
            rows = F.cross_entropy(
                scores, wanted, reduction='none', ignore_index=UNLABELED
            )
            weights = getattr(self, f'weights{head}')[wanted.clamp(min=0)]
            # each process has its part of the mean of all, as many times as
            # there are processes: DistributedDataParallel takes their mean
            share = get_world_size() / count.clamp(min=1)
            losses.append((rows * weights).sum() * share)
        loss = torch.stack(losses).mean()
        chance = sum(map(math.log, self.num_classes)) / len(self.num_classes)
        known = labels[0] != UNLABELED
        right = (logits[0].argmax(1) == labels[0])[known]
        return dict(
            loss=loss,
            chance_ratio=loss.detach() / max(chance, 1e-6),
            label_accuracy=100
            * right.float().sum()
            / known.sum().clamp(min=1),
        )

    def predict(self, feats: torch.Tensor) -> torch.Tensor:
        """Probabilities of the first classifier's classes.

        Args:
            feats (Tensor): (M, in_channels).

        Returns:
            Tensor: (M, K), float32.
        """
        return self(feats)[0].softmax(1)
