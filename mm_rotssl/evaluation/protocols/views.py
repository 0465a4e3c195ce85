"""What remains of features when the image is changed at random?"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..functional import (
    alignment,
    lidar,
    mean_cosine_of_others,
    neighbor_overlap,
    uniformity,
)
from ..measurement import Measurement, Metric
from ..subject import Subject
from ..variants import RandomViews
from .base import Protocol


@dataclass(frozen=True)
class Views(Protocol):
    """LiDAR, alignment, uniformity, and neighbors that stay.

    Args:
        max_images (int): At most so many images, drawn at random; LiDAR is
            lower than their number. Defaults to 1,000.
        views (int): Of each image, for LiDAR, two or more; the others
            compare the first two. Defaults to 10.
        neighbors (int): Of each image. Defaults to 10.
    """

    max_images: int = 1000
    views: int = 10
    neighbors: int = 10

    name = 'views'
    title = 'Random views'
    about = (
        'Each image is cropped at random to 20 to 100 % of its area, scaled '
        'back, mirrored or not, and made up to 40 % brighter or darker; all '
        'networks get the same views. Methods that learn from two views of '
        'an image are at home here, others are not.'
    )
    labeled = False
    metrics = {
        'lidar': Metric(
            'LiDAR',
            'Effective rank, as RankMe, of the eigenvalues of W^-1/2 B '
            "W^-1/2: B is the covariance of the images' means over their "
            'views, W that of the views of an image, averaged over images, '
            'plus 1e-4 on its diagonal (Thilak et al., ICLR 2024). Counts '
            'directions in which images differ more than their views do. '
            'Where features are tiny, 1e-4 outweighs W, and B alone is '
            'measured. The authors take the views the network was trained '
            'with; these are not.',
            better='higher',
        ),
        'alignment': Metric(
            'Alignment',
            'Mean squared distance of two views of an image, features scaled '
            'to length 1 (Wang & Isola, ICML 2020, alpha = 2). Beside it, '
            'as chance, that of views of different images: only a small '
            'share of it means that an image is recognized; both are 0 after '
            'collapse.',
            better='lower',
        ),
        'uniformity': Metric(
            'Uniformity',
            'ln mean exp(-2 |x - y|^2) over all pairs of images, features '
            'scaled to length 1 (Wang & Isola, ICML 2020, t = 2), the mean '
            'of two views. 0: collapse to one direction; about -4: even on '
            'the sphere. Features behind a ReLU lie in a small part of it.',
            better='lower',
        ),
        'neighbors_kept': Metric(
            'Neighbors kept',
            'Share of nearest neighbors, by cosine, that an image has both '
            'among the first views and among the second views of all '
            '(mutual neighbors, Huh et al., ICML 2024). Missing where all '
            'images are alike.',
            '%',
            'higher',
        ),
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
        stages = subject.image_features(
            RandomViews(self.views, subject.seed), self.max_images
        )
        count = self.count_images(stages, self.neighbors + 1, self.views)
        images = torch.arange(count).repeat_interleave(self.views)
        for stage, feats in stages.items():
            yield Measurement('lidar', stage, [lidar(feats, images)])
            first, second = feats[:: self.views], feats[1 :: self.views]
            yield Measurement(
                'alignment',
                stage,
                [alignment(first, second)],
                2 - 2 * mean_cosine_of_others(first, second),
            )
            yield Measurement(
                'uniformity',
                stage,
                [(uniformity(first) + uniformity(second)) / 2],
            )
            kept = neighbor_overlap(first, second, self.neighbors)
            if kept is not None:
                yield Measurement(
                    'neighbors_kept',
                    stage,
                    [kept],
                    100 * self.neighbors / (count - 1),
                )
