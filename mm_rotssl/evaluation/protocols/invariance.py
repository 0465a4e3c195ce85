"""How much do features change when the image is rotated?"""

from collections.abc import Iterator
from dataclasses import dataclass

from ..functional import mean_cosine, mean_cosine_of_others, neighbor_overlap
from ..measurement import Measurement, Metric
from ..subject import Subject
from ..variants import Rotations
from .base import Protocol

ANGLES = (90, 180, 270)


@dataclass(frozen=True)
class Invariance(Protocol):
    """Compare the features of an image and of its three exact rotations.

    Args:
        max_images (int): At most so many images, drawn at random. Defaults
            to 2,000.
        neighbors (int): Of each image. Defaults to 10.
    """

    max_images: int = 2000
    neighbors: int = 10

    name = 'invariance'
    title = 'Invariance under rotation'
    about = (
        'Every image is rotated by 90, 180 and 270 degrees, exactly, and its '
        'features are compared with those of the image as it is. Neither '
        'much nor little is better in itself: objects that have an '
        'orientation are told from their rotations by features that change, '
        'and a network that learned to predict rotations has to change.'
    )
    labeled = False
    metrics = {
        **{
            f'neighbors_{angle}': Metric(
                f'Neighbors kept, {angle}°',
                'Share of nearest neighbors, by cosine, that an image has '
                f'both among the images and, rotated by {angle}°, among the '
                'rotated images (mutual neighbors, Huh et al., ICML 2024). '
                'Below 100 even where features only turn with the image if '
                "they don't turn together. Missing where all images are "
                'alike.',
                '%',
            )
            for angle in ANGLES
        },
        **{
            f'cosine_{angle}': Metric(
                f'Cosine, {angle}°',
                'Mean cosine similarity of the features of an image and of '
                f'its rotation by {angle}°. Beside it, as chance, that of an '
                'image and the rotations of others: features that are never '
                'negative are similar whatever they are of.',
            )
            for angle in ANGLES
        },
    }

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: A figure each; none where it is not defined.

        Raises:
            InputError: See `count_images`.
        """
        rotations = Rotations()
        stages = subject.image_features(rotations, self.max_images)
        count = self.count_images(stages, self.neighbors + 1, rotations.copies)
        chance = 100 * self.neighbors / (count - 1)
        for stage, feats in stages.items():
            upright = feats[:: rotations.copies]
            for turns, angle in enumerate(ANGLES, 1):
                rotated = feats[turns :: rotations.copies]
                kept = neighbor_overlap(upright, rotated, self.neighbors)
                if kept is not None:
                    yield Measurement(
                        f'neighbors_{angle}', stage, [kept], chance
                    )
                yield Measurement(
                    f'cosine_{angle}',
                    stage,
                    [mean_cosine(upright, rotated)],
                    mean_cosine_of_others(upright, rotated),
                )
