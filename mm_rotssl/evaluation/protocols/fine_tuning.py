from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.ops import pool_features

from ..feature_store import backbone_outputs
from ..functional import FINE_TUNING, fine_tune, plan_fine_tuning
from ..measurement import Measurement, Metric
from ..subject import Subject
from .base import Protocol, shots_title

# more images than this are not kept in memory
MOST_KEPT = 1000


class _LastStage(nn.Module):
    """A network that gives the pooled vector of its last stage."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map images to vectors (N, C)."""
        return pool_features(backbone_outputs(self.model, inputs))[-1]


@dataclass(frozen=True)
class FineTuning(Protocol):
    """Train a copy of the whole backbone on some labels, and measure it.

    A short, fixed recipe, see `fine_tune`: for comparing starting points
    where labels are few, not for the best accuracy.

    Args:
        shots (Sequence[int | str]): Labels a class, or shares of them, see
            :meth:`Features.draw`; what the smallest class does not have is
            left out. Defaults to (10,).
        draws (int): Draws of the labels; the classifier starts differently
            in each. Defaults to 3.
    """

    shots: tuple[int | str, ...] = (10,)
    draws: int = 3

    name = 'finetune'
    title = 'Fine-tuning'
    about = (
        'All layers are trained on some of the labeled images, with a linear '
        'classifier on the pooled last stage: '
        f'{FINE_TUNING["epochs"]} epochs, batches of at most '
        f'{FINE_TUNING["batch_size"]}, {FINE_TUNING["optimizer"]}, rate '
        f'{FINE_TUNING["lr"]}, {FINE_TUNING["schedule"]}, weight decay '
        f'{FINE_TUNING["weight_decay"]}, no augmentation. The longer the '
        'training and the more labels, the less the start matters. Networks '
        'get the same labels, the same start of the classifier and the same '
        'batches.'
    )
    labeled = True
    quick = False

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """One for each number of labels."""
        return {
            str(shots): Metric(
                shots_title(shots),
                'Accuracy on the test images.',
                '%',
                'higher',
            )
            for shots in self.shots
        }

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: One for each number of labels.

        Raises:
            InputError: If a class has too few images for any of them.
        """
        assert subject.reference is not None
        assert subject.test is not None
        feats = subject.features
        # drawn before anything is trained: too few are noticed at once
        chosen = feats.draw_possible(self.shots, self.draws, subject.seed)
        for shots, draws in chosen.items():
            correct = []
            for number, places in enumerate(draws):
                if subject.report is not None:
                    subject.report(
                        f'fine-tuning, {shots} labels, draw {number + 1} of '
                        f'{len(draws)}'
                    )
                predicted = fine_tuned_classes(
                    subject.model,
                    subject.reference,
                    subject.test,
                    places,
                    len(feats.classes),
                    subject.seed + number,
                )
                correct.append((predicted == feats.test_labels).numpy())
            yield Measurement(
                str(shots),
                None,
                [100 * float(right.mean()) for right in correct],
                feats.chance,
                np.array(correct, np.float32).mean(0),
            )


def fine_tuned_classes(
    model: BaseSelfSupervisor,
    reference: DataLoader,
    test: DataLoader,
    chosen: torch.Tensor,
    num_classes: int,
    seed: int,
) -> torch.Tensor:
    """Train a copy of the whole backbone on a few labels, and classify.

    Args:
        model (BaseSelfSupervisor): Any algorithm with a ``backbone``, or an
            image classifier; not changed.
        reference (DataLoader): Labeled images to train on.
        test (DataLoader): Images to classify.
        chosen (Tensor): Positions of the reference images that may be used,
            int64, see `Features.draw`.
        num_classes (int): Number of classes.
        seed (int): Of the classifier and of the order of the images.

    Returns:
        Tensor: Classes of the test images, int64 (N,), on the CPU.
    """
    plan = plan_fine_tuning(len(chosen), seed)
    places = chosen.tolist()
    few = len(places) <= MOST_KEPT
    images: Any = reference.dataset
    if few:
        # read once, not in each epoch
        images = {i: images[i] for i in places}
    batches = DataLoader(
        images,
        batch_sampler=[chosen[batch].tolist() for batch in plan],
        collate_fn=reference.collate_fn,
        num_workers=0 if few else reference.num_workers,
        worker_init_fn=reference.worker_init_fn,
    )
    tuned = fine_tune(
        _LastStage(model),
        (_prepare(model, batch) for batch in batches),
        len(plan),
        num_classes,
        seed,
    )
    with torch.no_grad():
        found = [
            tuned(_prepare(model, batch)[0]).argmax(1).cpu() for batch in test
        ]
    return torch.cat(found)


def _prepare(
    model: BaseSelfSupervisor, batch: dict
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalized images and labels, on the network's device."""
    data = model.data_preprocessor(batch, False)
    labels = [int(sample.gt_label) for sample in data['data_samples']]
    return data['inputs'], torch.tensor(labels, device=data['inputs'].device)
