"""Do the classes that a network finds without labels agree with the real?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmpretrain.models import BaseClassifier, BaseSelfSupervisor
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch.utils.data import DataLoader

from mm_rotssl.utils import InputError

from ..features import Features
from ..functional import (
    clustering_scores,
    limit_threads,
    read_hierarchy,
    right_images,
    superclass_scores,
)
from ..labels import REFERENCE
from ..measurement import Measurement, Metric
from ..report import format_spread
from ..subject import Subject
from .base import Protocol

# k-means needs a copy of the features; of more bytes than this none is made
MOST_BYTES = 2**30
# score -> heading
SHOWN = {
    'nmi': 'NMI',
    'ami': 'AMI',
    'ari': 'ARI',
    'accuracy': 'ACC',
    'accuracy_one_to_one': 'ACC, one to one',
    'clusters_in_use': 'clusters',
    'coarse_accuracy': 'ACC, superclasses',
}


@torch.no_grad()
def predict_classes(
    model: BaseSelfSupervisor, test: DataLoader
) -> np.ndarray | None:
    """Ask a network for its own classes.

    Args:
        model (BaseSelfSupervisor): The algorithm, in eval mode.
        test (DataLoader): The images.

    Returns:
        ndarray | None: Class of each image, int64 (N,); None where the
        network gives none (samples without ``pred_label``).
    """
    # those of a classifier are not found without labels, and it need not
    # have a head
    if isinstance(model, BaseClassifier) or not hasattr(model, 'predict'):
        return None
    found: list[int] = []
    for batch in test:
        samples = model.val_step(batch)
        if 'pred_label' not in samples[0]:
            return None
        found += [int(sample.pred_label) for sample in samples]
    return np.array(found)


METRICS = {
    'nmi': Metric(
        'NMI',
        'Mutual information of clusters and classes over the mean of their '
        'entropies. Grows with the number of clusters by chance alone.',
        '%',
        'higher',
    ),
    'ami': Metric(
        'AMI',
        'NMI, corrected so that chance gives 0 (Vinh et al., JMLR 2010).',
        '%',
        'higher',
    ),
    'ari': Metric(
        'ARI',
        'Share of pairs of images that clusters and classes agree on, '
        'corrected so that chance gives 0 (Hubert & Arabie 1985).',
        '%',
        'higher',
    ),
    'accuracy_one_to_one': Metric(
        'ACC, one to one',
        'Accuracy if each cluster stands for one class and no two for the '
        'same (Hungarian matching). With more clusters than classes the rest '
        'counts as wrong.',
        '%',
        'higher',
    ),
    'accuracy_many_to_one': Metric(
        'ACC, many to one',
        'Accuracy if each cluster stands for the class that most of its '
        'images are of (purity); found on the same images, so more clusters '
        'are better by chance alone.',
        '%',
        'higher',
    ),
    'clusters_in_use': Metric(
        'Clusters', 'Clusters that have an image of the test set.'
    ),
}


OF_SUPERCLASSES = Metric(
    'ACC, superclasses',
    'Share of the images, of those whose class belongs to a superclass, whose '
    'cluster stands for a class of the same superclass. Clusters stand for '
    'classes as for "ACC, one to one", those left over for the class that '
    'most of their images are of.',
    '%',
    'higher',
)


@dataclass(frozen=True)
class Clusters(Protocol):
    """Compare clusters of the test images with their classes.

    The clusters are the network's own classes, where it has some, and those
    of k-means on the features of every stage, fitted to the reference set:
    the best of ten starts; of more than 1 GiB of features by minibatches
    (Sculley, *Web-Scale K-Means Clustering*, WWW 2010).

    Args:
        num_clusters (int, optional): Of k-means. Defaults to None, as many
            as there are classes.
        draws (int): Runs of k-means. Defaults to 3.
        hierarchy (str, optional): File or folder of superclasses, see
            :func:`read_hierarchy`. Defaults to None, they are not looked at.
        level (int, optional): Depth of the superclasses. Defaults to None.
        ancestor (str, optional): Only classes below it. Defaults to None.
    """

    num_clusters: int | None = None
    draws: int = 3
    hierarchy: str | None = None
    level: int | None = None
    ancestor: str | None = None

    name = 'clusters'
    title = 'Clusters and classes'
    about = (
        'k-means on the features of a stage, fitted to the labeled images to '
        'learn from without their labels, puts the test images into '
        'clusters; a draw is another random start. Where the network '
        'predicts classes of its own, these are judged as the whole network. '
        'Labels are read only to compare.'
    )
    labeled = True

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See base class; superclasses where there are some."""
        if self.hierarchy is None:
            return METRICS
        return {**METRICS, 'coarse_accuracy': OF_SUPERCLASSES}

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: Each score of each way of clustering.

        Raises:
            ValueError: If there are fewer reference images than clusters;
                see also :func:`read_hierarchy`.
        """
        assert subject.test is not None
        feats = subject.features
        superclasses = None
        if self.hierarchy is not None:
            superclasses, _ = read_hierarchy(
                self.hierarchy, feats.classes, self.level, self.ancestor
            )
        clusters: dict[str | None, list[np.ndarray]] = dict(
            self._k_means(feats, subject.seed)
        )
        own = predict_classes(subject.model, subject.test)
        if own is not None:
            clusters[None] = [own]
        targets = feats.test_labels.numpy()
        for stage, runs in clusters.items():
            scores = [clustering_scores(found, targets) for found in runs]
            for key in ('nmi', 'ami', 'ari'):
                yield Measurement(
                    key,
                    stage,
                    [one[key] for one in scores],
                    None if key == 'nmi' else 0.0,
                )
            right = [right_images(found, targets) for found in runs]
            for key, draws in zip(
                ('accuracy_one_to_one', 'accuracy_many_to_one'),
                zip(*right, strict=True),
                strict=True,
            ):
                yield Measurement(
                    key,
                    stage,
                    [100 * float(one.mean()) for one in draws],
                    correct=np.array(draws, np.float32).mean(0),
                )
            yield Measurement(
                'clusters_in_use',
                stage,
                [one['clusters_in_use'] for one in scores],
            )
            if superclasses is not None:
                yield Measurement(
                    'coarse_accuracy',
                    stage,
                    [
                        superclass_scores(found, targets, superclasses)[
                            'coarse_accuracy'
                        ]
                        for found in runs
                    ],
                )

    def judge(
        self,
        feats: Features,
        own: np.ndarray | None,
        seed: int,
        superclasses: np.ndarray | None = None,
    ) -> dict[str, list[dict[str, float]]]:
        """Judge every way of clustering, with superclasses if there are any.

        Args:
            feats (Features): Of a network.
            own (ndarray, optional): What `predict_classes` gave.
            seed (int): Of the first run of k-means; those behind count on.
            superclasses (ndarray, optional): See `superclass_scores`.
                Defaults to None, not judged.

        Returns:
            dict[str, list[dict[str, float]]]: Way of clustering -> of each
            run the scores, see `clustering_scores`.

        Raises:
            ValueError: If there are fewer reference images than clusters.
        """
        ways = {} if own is None else {'own classes': [own]}
        for stage, runs in self._k_means(feats, seed):
            ways[f'k-means, stage {stage}'] = runs
        targets = feats.test_labels.numpy()
        results = {
            way: [clustering_scores(found, targets) for found in runs]
            for way, runs in ways.items()
        }
        if superclasses is not None:
            for way, runs in ways.items():
                for scores, found in zip(results[way], runs, strict=True):
                    scores |= superclass_scores(found, targets, superclasses)
        return results

    def _k_means(
        self, feats: Features, seed: int
    ) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Stage, and of each run the clusters of the test images."""
        count = self.num_clusters or len(feats.test_labels.unique())
        images = len(feats.reference_labels)
        if images < count:
            raise InputError(
                f'The {images} images that k-means is fitted to make no '
                f'{count} clusters. Add images to {REFERENCE}, or raise '
                f'--max-reference, or set --num-clusters to {images} or less.'
            )
        for stage, reference, test in zip(
            feats.stages, feats.reference, feats.test, strict=True
        ):
            rows = reference.numpy()
            yield (
                stage,
                [
                    _k_means(rows, count, seed + i).predict(test.numpy())
                    for i in range(self.draws)
                ],
            )


def _k_means(
    rows: np.ndarray, count: int, seed: int
) -> KMeans | MiniBatchKMeans:
    """Fit k-means, without a copy of rows that would be too large."""
    if rows.nbytes <= MOST_BYTES:
        with limit_threads(rows.size * count):
            return KMeans(count, n_init=10, random_state=seed).fit(rows)
    return MiniBatchKMeans(
        count,
        # of each cluster some are in a batch
        batch_size=max(4096, 16 * count),
        n_init=10,
        compute_labels=False,
        random_state=seed,
    ).fit(rows)


def clusters_rows(
    results: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]],
) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Write scores for tables.

    Args:
        results (Mapping): Network -> what :meth:`Clusters.judge` gave.

    Returns:
        tuple[list[str], dict[str, list[list[str]]]]: Headings of the
        scores, and network -> rows: way of clustering, and mean and spread
        of each score.
    """
    runs = [
        run
        for ways in results.values()
        for draws in ways.values()
        for run in draws
    ]
    hidden = set(SHOWN) - set(runs[0])
    # they differ only where there are more clusters than classes
    if all(run['accuracy'] == run['accuracy_one_to_one'] for run in runs):
        hidden.add('accuracy_one_to_one')
    keys = [key for key in SHOWN if key not in hidden]
    return [SHOWN[key] for key in keys], {
        network: [
            [way, *(_cell(key, [draw[key] for draw in draws]) for key in keys)]
            for way, draws in ways.items()
        ]
        for network, ways in results.items()
    }


def _cell(key: str, values: list[float]) -> str:
    if key == 'clusters_in_use':
        return f'{np.mean(values):.0f}'
    return format_spread(values)
