from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from mm_rotssl.registry import METRICS

from ..functional import clustering_scores, read_hierarchy, superclass_scores

REMEDIES = {
    'pred_label': 'predict of the algorithm assigns no clusters. Remove the '
    'metric from val_evaluator.',
    'gt_label': 'the images have no labels. Use a labeled dataset, with '
    'PackInputs at the end of its pipeline, or remove the metric from '
    'val_evaluator.',
}


@METRICS.register_module()
class ClusteringMetric(BaseMetric):
    """How well clusters agree with classes that they were found without.

    All images of the validation set are compared together. Right under
    several processes with a padded last batch.

    Args:
        hierarchy (dict, optional): Compares with superclasses, too: the
            arguments ``path``, and for a folder ``level`` and, if wanted,
            ``ancestor`` of :func:`read_hierarchy`. The dataset has to name
            its classes. Defaults to None.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.

    Results, with the prefix ``cluster/``: those of
    :func:`clustering_scores`, and with a hierarchy those of
    :func:`superclass_scores`, both in percent but for numbers.

    Raises:
        ValueError: If ``hierarchy`` has no ``path`` or has other keys. Once
            the dataset is known, before training: if it names no classes;
            see also :func:`read_hierarchy`.

    Examples:
        >>> import torch
        >>> metric = ClusteringMetric()
        >>> for cluster, label in ((7, 0), (7, 0), (3, 1), (3, 0)):
        ...     sample = dict(
        ...         pred_label=torch.tensor([cluster]),
        ...         gt_label=torch.tensor([label]),
        ...     )
        ...     metric.process(None, [sample])
        >>> metric.evaluate(4)['cluster/accuracy']
        75.0
    """

    default_prefix = 'cluster'

    def __init__(self, hierarchy: dict | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if hierarchy is not None:
            known = {'path', 'level', 'ancestor'}
            if 'path' not in hierarchy or not hierarchy.keys() <= known:
                raise ValueError(
                    f'hierarchy={hierarchy} of ClusteringMetric must have '
                    'path, and may have level and ancestor.'
                )
        self.hierarchy = hierarchy
        self._superclasses: np.ndarray | None = None

    @property
    def dataset_meta(self) -> dict | None:
        """dict, optional: ``metainfo`` of the dataset."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict | None) -> None:
        # Loops set it before training. The hierarchy is read then, so that
        # its mistakes show before an epoch is spent.
        self._dataset_meta = dataset_meta
        if self.hierarchy is not None:
            classes = (dataset_meta or {}).get('classes')
            if not classes:
                raise ValueError(
                    'The hierarchy of ClusteringMetric needs the names of '
                    'the classes, and the dataset has none. Give them by '
                    'metainfo=dict(classes=[...]) of the dataset.'
                )
            self._superclasses, _ = read_hierarchy(
                classes=classes, **self.hierarchy
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note cluster and class of each image.

        Args:
            data_batch (Any): Not read.
            data_samples (Sequence[dict]): With ``pred_label`` and
                ``gt_label``, (1,) each.

        Raises:
            KeyError: If a sample lacks one of them.
        """
        for sample in data_samples:
            for key, remedy in REMEDIES.items():
                if key not in sample:
                    raise KeyError(
                        f'ClusteringMetric found no {key}: {remedy}'
                    )
            self.results.append(
                (int(sample['pred_label']), int(sample['gt_label']))
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compare over all images.

        Args:
            results (list[tuple[int, int]]): Cluster and class of each.

        Returns:
            dict[str, float]: See the class.

        Raises:
            ValueError: If there is a hierarchy but ``dataset_meta`` was
                never set.
        """
        predictions = np.array([cluster for cluster, _ in results])
        targets = np.array([label for _, label in results])
        scores = clustering_scores(predictions, targets)
        if self.hierarchy is not None:
            if self._superclasses is None:
                raise ValueError(
                    'The hierarchy of ClusteringMetric needs the names of '
                    'the classes: set dataset_meta of the evaluator to the '
                    "dataset's metainfo."
                )
            scores |= superclass_scores(
                predictions, targets, self._superclasses
            )
        return scores
