"""What shape features have, without any label."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..functional import (
    alpha_req,
    cluster_stability,
    dead_channels,
    feature_spread,
    hubness,
    mst_dimension,
    rankme,
    two_nn_dimension,
)
from ..measurement import Measurement, Metric
from ..subject import Subject
from .base import Protocol

METRICS = {
    'rankme': Metric(
        'RankMe',
        'Effective rank: exp(-sum p_k ln p_k), p_k = s_k / sum s + 1e-7, with '
        'the singular values s of the features, not centered; from 1 to the '
        'number of channels or of images, whichever is smaller (Garrido et '
        'al., ICML 2023). A low rank shows that few directions are used; a '
        'high one does not show that they are of use, noise has the highest. '
        'Compare runs of one method and one architecture, on the same '
        'images.',
        better='higher',
    ),
    'alpha_req': Metric(
        'alpha-ReQ',
        'The exponent a of k^-a, to which the eigenvalues of the covariance '
        'fall: weighted least squares of ln eigenvalue against ln k, weights '
        '1 / k, k from 11 to 100 or to the rank (Agrawal et al., NeurIPS '
        "2022; the range is that of the authors' code). Good features were "
        'found near 1; far above, few directions have nearly all variance, '
        'far below, noise has much. Missing where fewer than 10 eigenvalues '
        'are in the range, as in stages with fewer than 20 channels. Only '
        'stages with 100 channels or more are fitted over the whole range.',
    ),
    'two_nn': Metric(
        'Two-NN dimension',
        'Intrinsic dimension: slope through the origin of -ln(1 - i / N) '
        'against ln m_i, the sorted ratios m of the distances to the second '
        'and the first neighbor, without the largest 10 % (Facco et al., '
        'Scientific Reports 2017). Local, and too low where the dimension is '
        'above 10 or so and images are few. Of equal features one counts; 0 '
        'where all are equal, missing where all are equally far apart.',
    ),
    'mst': Metric(
        'MST dimension',
        'Intrinsic dimension 1 / (1 - m), with the slope m of ln L against '
        'ln n, L being the length of the minimum spanning tree of n images, '
        'the mean of 5 draws: n is 10 %, 20 %, ... and all of them (IdEst, '
        'Mordacq et al., 2026, arXiv:2606.03338). Among 33 trained networks '
        'the lower had the better linear probe (rank correlation -0.8). An '
        'untrained or collapsed network can be low, too. Of equal features '
        'one counts; 0 where fewer than 20 are different, missing where L '
        'grows as n or faster.',
    ),
    'spread': Metric(
        'Spread',
        'Standard deviation of features scaled to length 1, averaged over '
        'the d channels, times sqrt(d): 0 is collapse, all images alike; 1 is '
        'even around the origin (Chen & He, CVPR 2021, section 4.1, where '
        'the value is compared with 1 / sqrt(d)). Features behind a ReLU are '
        'never negative and stay well below 1. Collapse to a few directions '
        'is told by the rank, not by this.',
        better='higher',
    ),
    'dead': Metric(
        'Dead channels',
        'Share of channels that are the same for all images, to a millionth '
        'of their largest value. They take memory and tell nothing.',
        '%',
        'lower',
    ),
    'hubness': Metric(
        'Hubness',
        'Skewness of how often images are among the nearest neighbors, by '
        'cosine, of others (Radovanović et al., JMLR 2010). 0: '
        'all are equally often; above 1 or so, a few images are neighbors of '
        'everything, and nearest neighbors mean less. Grows with the '
        'dimension. Missing where all images are alike.',
        better='lower',
    ),
    'cluster_stability': Metric(
        'Cluster stability',
        'k-means is fitted to either half of the images, both fits assign '
        'all, and the adjusted Rand index of the two is taken (after Lange '
        'et al., Neural Computation 2004); a draw is another pair of halves. '
        '100: the same clusters come again; 0: agreement by chance. Stable '
        'clusters need not be of objects; brightness is stable, too. Missing '
        'where a half has fewer different features than clusters.',
        '%',
        'higher',
    ),
}


@dataclass(frozen=True)
class Geometry(Protocol):
    """Rank, dimension, collapse, hubs and clusters, each a formula.

    Args:
        max_images (int): At most so many images, drawn at random. The rank
            that is found can't be higher; RankMe's authors took 25,600.
            Defaults to 5,000.
        tree_images (int): The same for the minimum spanning tree, whose
            time grows with its square. Defaults to 2,000.
        neighbors (int): Of hubness. Defaults to 10, as in the paper.
        clusters (int): Of the clusters' stability. Defaults to 10.
        draws (int): Pairs of halves that it is measured with. Defaults to 3.
    """

    max_images: int = 5000
    tree_images: int = 2000
    neighbors: int = 10
    clusters: int = 10
    draws: int = 3

    name = 'geometry'
    title = 'Geometry of the features'
    about = (
        'Figures of the features of the images as they are; nothing is '
        'learned and no label is read. They tell of collapse and of unused '
        'directions for certain, and of how good features are for a task '
        'only as far as the sources found, mostly among networks of one kind.'
    )
    labeled = False
    metrics = METRICS

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: A figure each; none where it is not defined.

        Raises:
            InputError: See `count_images`.
        """
        stages = subject.image_features(max_images=self.max_images)
        self.count_images(
            stages, max(20, self.neighbors + 1, 2 * self.clusters)
        )
        formulas: dict[str, Callable[[torch.Tensor], float | None]] = {
            'rankme': rankme,
            'alpha_req': alpha_req,
            'two_nn': two_nn_dimension,
            'mst': lambda feats: mst_dimension(
                self._draw(feats, subject.seed), subject.seed
            ),
            'spread': feature_spread,
            'dead': dead_channels,
            'hubness': lambda feats: hubness(feats, self.neighbors),
        }
        for stage, feats in stages.items():
            for metric, formula in formulas.items():
                value = formula(feats)
                if value is not None:
                    yield Measurement(metric, stage, [value])
            values = [
                cluster_stability(feats, self.clusters, (subject.seed, draw))
                for draw in range(self.draws)
            ]
            found = [value for value in values if value is not None]
            if found:
                yield Measurement('cluster_stability', stage, found, 0.0)

    def _draw(self, feats: torch.Tensor, seed: int) -> torch.Tensor:
        order = np.random.default_rng(seed).permutation(len(feats))
        return feats[torch.from_numpy(order[: self.tree_images])]
