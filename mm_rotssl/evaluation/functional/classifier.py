import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mm_rotssl.utils import InputError

# images at a time where nothing is trained
CHUNK = 512


class _Divide(nn.Module):
    """Divide by a number."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.divisor


def train_classifier(
    build: Callable[[], nn.Module],
    feats: torch.Tensor,
    labels: torch.Tensor,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    milestones: Sequence[int] = (),
    gamma: float = 0.2,
    seed: int = 0,
    device: str | torch.device = 'cpu',
    report: Callable[[int], None] | None = None,
) -> nn.Module:
    """Train a classifier on frozen features by stochastic gradient descent.

    Cross entropy, Nesterov momentum 0.9 and weight decay of all parameters,
    as RotNet's official code has them. Before all else features are divided
    by one number, their root mean square: those of an untrained network can
    be so small that the constant in batch normalization would hide them. A
    batch of features is on the device at a time, so they may be mapped from
    the disk.

    Args:
        build (Callable): Makes the classifier, which maps (B, C) to logits
            (B, K); its random numbers depend on ``seed``.
        feats (Tensor): Features (M, C), float32.
        labels (Tensor): Their classes, int64 (M,).
        epochs (int): Passes over all images, each in another order.
        batch_size (int): Images of a step, or one less: all batches are
            alike.
        lr (float): Learning rate of the first epochs.
        weight_decay (float): Of all parameters.
        milestones (Sequence[int]): After so many epochs the rate is
            multiplied by ``gamma``. Defaults to (), never.
        gamma (float): See there. Defaults to 0.2.
        seed (int): Of the first weights and of the order. Defaults to 0.
        device (str | torch.device): Where it is trained. Defaults to 'cpu'.
        report (Callable, optional): Is told the number of epochs that are
            done. Defaults to None.

    Returns:
        nn.Module: Maps (N, C) to logits; in eval mode, on the device.

    Raises:
        InputError: If there is no epoch, or a batch has fewer than 2 images.
    """
    if epochs < 1 or batch_size < 2:
        raise InputError(
            f'epochs={epochs} and batch_size={batch_size} of a classifier: '
            'at least 1 and 2.'
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = nn.Sequential(_Divide(_root_mean_square(feats)), build())
        classifier.to(device).train()
        optimizer = torch.optim.SGD(
            classifier.parameters(),
            lr=lr,
            momentum=0.9,
            nesterov=True,
            weight_decay=weight_decay,
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(
            optimizer, milestones, gamma
        )
        # equal batches: a last one of an image or two would upset BatchNorm
        batches = math.ceil(len(feats) / batch_size)
        for epoch in range(epochs):
            for batch in torch.randperm(len(feats)).tensor_split(batches):
                logits = classifier(feats[batch].to(device))
                loss = F.cross_entropy(logits, labels[batch].to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
            if report is not None:
                report(epoch + 1)
    return classifier.eval()


@torch.no_grad()
def classify(classifier: nn.Module, feats: torch.Tensor) -> torch.Tensor:
    """Classify features, some at a time.

    Args:
        classifier (nn.Module): In eval mode, see `train_classifier`.
        feats (Tensor): Features (N, C), on any device.

    Returns:
        Tensor: Predicted classes, int64 (N,), on the CPU.
    """
    device = next(classifier.parameters()).device
    return torch.cat(
        [
            classifier(rows.to(device)).argmax(1).cpu()
            for rows in feats.split(CHUNK)
        ]
    )


def _root_mean_square(feats: torch.Tensor) -> float:
    """Of all numbers; 1 if all are 0."""
    total = sum(
        rows.double().square().mean(1).sum().item()
        for rows in feats.split(CHUNK)
    )
    return (total / len(feats)) ** 0.5 or 1.0
