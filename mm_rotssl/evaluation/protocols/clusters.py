"""Do the classes that a network finds without labels agree with the real?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from sklearn.cluster import KMeans
from torch.utils.data import DataLoader

from ..features import Features
from ..functional import clustering_scores, superclass_scores
from ..labels import REFERENCE
from ..report import format_spread

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
    if not hasattr(model, 'predict'):
        return None
    found: list[int] = []
    for batch in test:
        samples = model.val_step(batch)
        if 'pred_label' not in samples[0]:
            return None
        found += [int(sample.pred_label) for sample in samples]
    return np.array(found)


@dataclass(frozen=True)
class Clusters:
    """Compare clusters of the test images with their classes.

    The clusters are the network's own classes, where it has some, and those
    of k-means on the features of every stage, fitted to the reference set.

    Args:
        num_clusters (int, optional): Of k-means. Defaults to None, as many
            as there are classes.
        draws (int): Runs of k-means. Defaults to 3.
        seed (int): Of the first run; those behind count on. Defaults to 0.
        superclasses (ndarray, optional): See `superclass_scores`. Defaults
            to None, not judged.
    """

    num_clusters: int | None = None
    draws: int = 3
    seed: int = 0
    superclasses: np.ndarray | None = None

    def run(
        self, feats: Features, own: np.ndarray | None = None
    ) -> dict[str, list[dict[str, float]]]:
        """Judge every way of clustering.

        Args:
            feats (Features): Of a network.
            own (ndarray, optional): What `predict_classes` gave. Defaults
                to None.

        Returns:
            dict[str, list[dict[str, float]]]: Way of clustering -> of each
            run the scores, see `clustering_scores`.

        Raises:
            ValueError: If there are fewer reference images than clusters.
        """
        count = self.num_clusters or len(feats.test_labels.unique())
        images = len(feats.reference_labels)
        if images < count:
            raise ValueError(
                f'The {images} images that k-means is fitted to make no '
                f'{count} clusters. Add images to {REFERENCE}, or raise '
                f'--max-reference, or set --num-clusters to {images} or less.'
            )
        found = {} if own is None else {'own classes': [own]}
        for stage, reference, test in zip(
            feats.stages, feats.reference, feats.test, strict=True
        ):
            found[f'k-means, stage {stage}'] = [
                KMeans(count, n_init=10, random_state=self.seed + i)
                .fit(reference.numpy())
                .predict(test.numpy())
                for i in range(self.draws)
            ]
        targets = feats.test_labels.numpy()
        return {
            way: [self._judge(clusters, targets) for clusters in runs]
            for way, runs in found.items()
        }

    def _judge(
        self, found: np.ndarray, targets: np.ndarray
    ) -> dict[str, float]:
        scores = clustering_scores(found, targets)
        if self.superclasses is not None:
            scores |= superclass_scores(found, targets, self.superclasses)
        return scores


def clusters_rows(
    results: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]],
) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Write scores for tables.

    Args:
        results (Mapping): Network -> what :meth:`Clusters.run` gave.

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
