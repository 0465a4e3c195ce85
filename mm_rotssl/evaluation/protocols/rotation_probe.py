"""Can the rotation of an image be read from frozen features?"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..functional import linear_probe
from ..measurement import Measurement, Metric
from ..subject import Subject
from ..variants import Rotations
from .base import Protocol


@dataclass(frozen=True)
class RotationProbe(Protocol):
    """A linear probe that tells four rotations apart.

    Args:
        max_images (int): At most so many images, drawn at random; half of
            them, in all four rotations, are learned from. Defaults to 2,000.
    """

    max_images: int = 2000

    name = 'rotation-probe'
    title = 'Rotation probe'
    about = (
        'Every image is rotated by 0, 90, 180 and 270 degrees. Logistic '
        'regression (features scaled to variance 1, C = 1) learns the '
        'rotation from the frozen features of one half of the images and is '
        'tested on the other half; all rotations of an image are in the same '
        'half. Among networks that never saw rotations the accuracy went '
        'with that of a labeled linear probe (SelfAugment, Reed et al., CVPR '
        '2021). For networks that were trained to predict rotations it is '
        'circular: it tells how well, and at which stage, they learned what '
        'they were taught, not how good their features are for anything '
        'else.'
    )
    labeled = False
    metrics = {
        'accuracy': Metric(
            'Rotation accuracy',
            'Share of the rotated test images whose rotation is predicted. '
            'Chance is 25 %. Images without an upright side limit it for any '
            'network.',
            '%',
            'higher',
        )
    }

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: Of each stage.

        Raises:
            InputError: See `count_images`.
        """
        rotations = Rotations()
        copies = rotations.copies
        stages = subject.image_features(rotations, self.max_images)
        count = self.count_images(stages, 2, copies)
        order = np.random.default_rng(subject.seed).permutation(count)
        train = torch.from_numpy(np.sort(order[: count // 2]))
        test = torch.from_numpy(np.sort(order[count // 2 :]))
        turns = torch.arange(copies)
        for stage, feats in stages.items():
            # (images, rotations, channels)
            versions = feats.unflatten(0, (count, copies))
            predicted = linear_probe(
                versions[train].flatten(0, 1),
                turns.repeat(len(train)),
                versions[test].flatten(0, 1),
            )
            hits = predicted.unflatten(0, (len(test), copies)) == turns
            correct = hits.float().mean(1).numpy()
            yield Measurement(
                'accuracy',
                stage,
                [100 * hits.double().mean().item()],
                100 / copies,
                correct,
            )
