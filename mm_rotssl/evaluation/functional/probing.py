"""How good are features where labels are few? Draws and fine-tuning."""

import copy
import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def draw_labels(
    labels: torch.Tensor, shots: int | float, seed: int | Sequence[int]
) -> torch.Tensor:
    """Choose the images whose labels may be used.

    With the same seed a larger draw holds the smaller ones, and the draw
    depends on the labels alone, so networks can be compared in pairs.

    Args:
        labels (Tensor): Classes of all labeled images, int64 (M,).
        shots (int | float): Images of each class that occurs; a real number
            is a share of each class, of which at least one is taken.
        seed (int | Sequence[int]): Of the draw; a sequence such as
            (seed of the experiment, number of the draw) gives independent
            draws.

    Returns:
        Tensor: Positions in ``labels``, int64, class by class: (classes *
        shots,), of shares their sum.

    Raises:
        ValueError: If ``shots`` is not positive, a share above 1, or a class
            has fewer images.

    Examples:
        >>> import torch
        >>> labels = torch.tensor([0, 1, 0, 1, 1])
        >>> labels[draw_labels(labels, 2, seed=0)].tolist()
        [0, 0, 1, 1]
    """
    share = isinstance(shots, float)
    if not (0 < shots <= 1 if share else shots >= 1):
        raise ValueError(
            f'shots={shots} must be a positive number of labels a class, or '
            'a share of them, from 0.0 to 1.0.'
        )
    rng = np.random.default_rng(seed)
    chosen = []
    for label in labels.unique().tolist():
        where = np.flatnonzero(labels.cpu().numpy() == label)
        count = max(1, round(shots * len(where))) if share else int(shots)
        if len(where) < count:
            raise ValueError(
                f'{shots} labels a class were asked for, but class {label} '
                f'has only {len(where)} labeled images. Ask for fewer or '
                'enlarge the labeled set.'
            )
        chosen.append(rng.permutation(where)[:count])
    return torch.from_numpy(np.concatenate(chosen))


# The recipe of `fine_tune`, written into reports.
FINE_TUNING: dict[str, Any] = dict(
    epochs=30,
    batch_size=50,
    optimizer='SGD, Nesterov momentum 0.9',
    lr=0.05,
    weight_decay=5e-4,
    schedule='cosine to 0',
    augmentation='none',
)


def plan_fine_tuning(count: int, seed: int = 0) -> list[torch.Tensor]:
    """Choose the images of each step of `fine_tune`.

    Args:
        count (int): Number of labeled images.
        seed (int): Of their order in each epoch. Defaults to 0.

    Returns:
        list[Tensor]: Positions in the labeled images, int64: every one once
        an epoch, in batches of at most 50 that are equally large, for a last
        one of an image or two would upset batch normalization.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = math.ceil(count / FINE_TUNING['batch_size'])
    return [
        batch
        for _ in range(FINE_TUNING['epochs'])
        for batch in torch.randperm(count, generator=generator).tensor_split(
            batches
        )
    ]


def fine_tune(
    network: nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    num_classes: int,
    seed: int = 0,
) -> nn.Module:
    """Train a copy of a network, and a linear classifier on it.

    A short, fixed recipe for about a hundred images, meant for comparing
    starting points, not for the best accuracy: 30 epochs, batches of at most
    50, SGD with Nesterov momentum 0.9 and weight decay 5e-4, a learning rate
    of 0.05 for all layers that falls to 0 in a half cosine, no augmentation.
    The longer the training, the less the start matters. The same seed gives
    the same classifier to start from.

    Args:
        network (nn.Module): Maps images to vectors (N, C); not changed.
        batches (Iterable[tuple[Tensor, Tensor]]): Of each step the images
            (N, C, H, W), normalized, on the network's device, and their
            classes, int64 (N,); see `plan_fine_tuning`. Only one has to be
            in memory at a time.
        steps (int): Number of batches.
        num_classes (int): Number of classes.
        seed (int): Of the classifier. Defaults to 0.

    Returns:
        nn.Module: Maps images to logits (N, num_classes); in eval mode.
    """
    with torch.random.fork_rng():
        rest = iter(batches)
        first = next(rest)
        network = copy.deepcopy(network)
        with torch.no_grad():
            channels = network.eval()(first[0][:1]).size(1)
        torch.manual_seed(seed)
        classifier = nn.Linear(channels, num_classes).to(first[0].device)
        model = nn.Sequential(network, classifier).train()
        optimizer = torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad],
            lr=FINE_TUNING['lr'],
            momentum=0.9,
            nesterov=True,
            weight_decay=FINE_TUNING['weight_decay'],
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for images, labels in chain([first], rest):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Summarize repeated measurements.

    Args:
        values (Sequence[float]): At least one.

    Returns:
        tuple[float, float | None]: Mean and sample standard deviation
        (divisor n - 1), which a single value does not have.

    Examples:
        >>> mean_and_std([1.0, 3.0])
        (2.0, 1.4142135623730951)
        >>> mean_and_std([1.0])
        (1.0, None)
    """
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread
