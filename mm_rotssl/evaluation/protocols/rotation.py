from collections.abc import Iterator
from dataclasses import dataclass

import torch
from mmpretrain.models import BaseClassifier, BaseSelfSupervisor
from torch.utils.data import DataLoader

from ..measurement import Measurement, Metric
from ..metrics import RotationAccuracy
from ..subject import Subject
from .base import Protocol


@torch.no_grad()
def recognized_rotations(
    model: BaseSelfSupervisor, images: DataLoader
) -> torch.Tensor | None:
    """Ask an algorithm for the rotations of images.

    Args:
        model (BaseSelfSupervisor): The algorithm, in eval mode.
        images (DataLoader): Images that were not trained on.

    Returns:
        Tensor | None: Which of its rotations of each image it tells, bool
        (N, rotations); None where it predicts none.
    """
    # a classifier's predictions are those of labels, if it has a head at all
    if isinstance(model, BaseClassifier) or not hasattr(model, 'predict'):
        return None
    metric = RotationAccuracy()
    for batch in images:
        samples = [sample.to_dict() for sample in model.val_step(batch)]
        if 'rotation_scores' not in samples[0]:
            return None
        metric.process(batch, samples)
    if not metric.results:
        return None
    return torch.stack([hits['rotation_scores'] for hits in metric.results])


@dataclass(frozen=True)
class OwnPredictions(Protocol):
    """What an algorithm predicts by itself: the rotation of an image."""

    name = 'own-predictions'
    title = "The algorithm's own predictions"
    about = (
        'How well the pretext task is solved on these images. It tells that '
        'training went well, not how good the features are: methods, and '
        'runs, are not to be ranked by it.'
    )
    labeled = False
    metrics = {
        'rotation': Metric(
            'Rotation accuracy',
            'Share of the rotated versions of the images whose rotation the '
            "algorithm's own head tells.",
            '%',
        )
    }

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: One, where the algorithm predicts rotations.
        """
        hits = recognized_rotations(subject.model, subject.images)
        if hits is not None:
            yield Measurement(
                'rotation',
                None,
                [100 * hits.double().mean().item()],
                100 / hits.size(1),
                hits.float().mean(1).numpy(),
            )
