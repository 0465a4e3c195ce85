"""Classifiers that are trained on frozen maps, step by step."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from ..functional import classify, train_classifier
from ..maps import extract_maps
from ..measurement import Measurement, Metric
from ..subject import Subject
from .base import Protocol


@dataclass(frozen=True)
class TrainedProbe(Protocol):
    """Base class of probes with a training recipe.

    Args:
        epochs (int): Length of the training. The learning rate falls at the
            recipe's shares of it.
        batch_size (int): Images of a step.
        lr (float): Learning rate of the first epochs.
        weight_decay (float): Of the classifier.
        values (int): Maps are averaged over cells to about so many numbers,
            see `pool_to_values`; smaller ones stay as they are.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    values: int

    #: Epochs, of the recipe's own length, behind which the rate is a fifth.
    lr_steps: ClassVar[tuple[int, ...]]
    #: Epochs of the recipe.
    length: ClassVar[int]
    #: Whether it needs a map, more than one vector a stage.
    needs_map: ClassVar[bool] = False

    labeled = True
    quick = False
    metrics = {
        'accuracy': Metric(
            'Accuracy',
            'Share of the test images whose class is predicted. Chance is '
            'that of one of the classes, drawn at random.',
            '%',
            'higher',
        )
    }

    @abstractmethod
    def build(self, channels: int, side: int, num_classes: int) -> nn.Module:
        """Make a classifier with its first weights.

        Args:
            channels (int): Of the stage.
            side (int): Cells of its map along a side.
            num_classes (int): Number of classes.

        Returns:
            nn.Module: Maps (N, channels * side * side) to logits.
        """

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: Of each stage that suits.

        Raises:
            InputError: See `count_images`.
        """
        assert subject.reference is not None
        assert subject.test is not None
        feats = subject.features
        means = dict(zip(feats.stages, feats.reference, strict=True))
        self.count_images(means, 2)
        maps, asked = (
            extract_maps(subject, images, self.values).stages
            for images in (subject.reference, subject.test)
        )
        labels = feats.reference_labels
        milestones = [
            max(1, round(self.epochs * step / self.length))
            for step in self.lr_steps
        ]
        for stage, rows in maps.items():
            channels = means[stage].size(1)
            side = math.isqrt(rows.size(1) // channels)
            if self.needs_map and side == 1:
                continue
            classifier = train_classifier(
                partial(self.build, channels, side, int(labels.max()) + 1),
                rows,
                labels,
                self.epochs,
                self.batch_size,
                self.lr,
                self.weight_decay,
                milestones,
                seed=subject.seed,
                device=next(subject.model.parameters()).device,
                report=partial(self._report, subject, stage),
            )
            right = classify(classifier, asked[stage]) == feats.test_labels
            yield Measurement(
                'accuracy',
                stage,
                [100 * right.double().mean().item()],
                feats.chance,
                right.float().numpy(),
            )

    def _report(self, subject: Subject, stage: str, epoch: int) -> None:
        if subject.report is not None:
            subject.report(
                f'{self.name}, stage {stage}: epoch {epoch} of {self.epochs}'
            )


class OnStage(nn.Module):
    """A neck and a head of a config on the rows of one stage.

    Args:
        shape (tuple[int, int, int]): Channels, height and width.
        neck (nn.Module): Takes a tuple of maps.
        head (nn.Module): Takes what the neck gives.
    """

    def __init__(
        self, shape: tuple[int, int, int], neck: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        self.shape = shape
        self.neck = neck
        self.head = head

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Map rows (N, C * H * W) to logits."""
        logits: torch.Tensor = self.head(
            self.neck((rows.unflatten(1, self.shape),))
        )
        return logits
