from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import collect_results
from mmengine.evaluator import BaseMetric

from mm_rotssl.registry import METRICS

from ..functional import accuracy, knn_classify


@METRICS.register_module()
class KNNAccuracy(BaseMetric):
    """Accuracy of a weighted k-nearest-neighbor classifier, in percent.

    The labeled images that vote are the ``reference_dataloader`` of
    :class:`KNNValLoop`, those that are classified its validation set; both
    are independent of the training data. Any algorithm can be measured:
    the features are the pooled outputs of its backbone.

    Right under several processes with a padded last batch: repeated
    images neither vote nor count twice.

    Classes of the two sets are matched by name, see
    :func:`mm_rotssl.evaluation.labels.match_labels`: the loop sets
    ``test_to_reference``.

    Args:
        k (int): Number of neighbors. Defaults to 20.
        temperature (float): Of the votes. Defaults to 0.07.
        chunk_size (int): Bounds the memory of the comparison, see
            :func:`search_neighbors`. Defaults to 8192.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.

    Results: ``knn/stage{i}`` for each output ``i`` of the backbone, from 1,
    and ``knn/best``, the largest of them.
    """

    default_prefix = 'knn'

    def __init__(
        self,
        k: int = 20,
        temperature: float = 0.07,
        chunk_size: int = 8192,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.k = k
        self.temperature = temperature
        self.chunk_size = chunk_size
        self.reference: list[tuple] = []
        self.reference_size = 0
        self.test_to_reference: torch.Tensor | None = None
        self._gathered: list | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take in images to classify.

        Args:
            data_batch (Any): Not read.
            data_samples (Sequence[dict]): With ``feats``, a tuple of (C,)
                tensors, and ``gt_label`` (1,).
        """
        self.results.extend(self._rows(data_samples))

    def process_reference(
        self, data_samples: Sequence[dict], size: int
    ) -> None:
        """Take in images that vote.

        Args:
            data_samples (Sequence[dict]): As in :meth:`process`.
            size (int): Number of images in the whole reference set, by
                which repeated ones at the end are told.
        """
        self.reference.extend(self._rows(data_samples))
        self.reference_size = size

    @staticmethod
    def _rows(data_samples: Sequence[dict]) -> list[tuple]:
        rows = []
        for sample in data_samples:
            if 'gt_label' not in sample:
                raise KeyError(
                    'KNNAccuracy needs labels, and an image of '
                    'val_cfg.reference_dataloader or val_dataloader has none. '
                    'Point both to labeled sets (e.g. with_label=True of '
                    'the dataset) or remove the metric.'
                )
            rows.append(
                (
                    # a copy: a view would drag its whole batch along when
                    # rows are sent to the other processes
                    tuple(feat.cpu().clone() for feat in sample['feats']),
                    int(sample['gt_label']),
                )
            )
        return rows

    def evaluate(self, size: int) -> dict[str, float]:
        """Compute over all processes.

        Args:
            size (int): Number of images in the validation set.

        Returns:
            dict[str, float]: See the class, the same on every process.

        Raises:
            RuntimeError: If no reference set was handed in.
        """
        if not self.reference:
            raise RuntimeError(
                'KNNAccuracy has no reference set: use val_cfg=dict('
                "type='mm_rotssl.KNNValLoop', reference_dataloader=...)."
            )
        # None but on the main process, which alone computes
        self._gathered = collect_results(
            self.reference,
            self.reference_size,
            self.collect_device,
            tmpdir=self.collect_dir,
        )
        self.reference = []
        return super().evaluate(size)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Classify the gathered images.

        Args:
            results (list): Features and label of each image.

        Returns:
            dict[str, float]: percent.
        """
        assert self._gathered is not None
        reference, reference_labels = self._stack(self._gathered)
        self._gathered = None
        queries, labels = self._stack(results)
        if self.test_to_reference is not None:
            labels = self.test_to_reference[labels]
        figures = {}
        stages = zip(reference, queries, strict=True)
        for stage, (votes, asked) in enumerate(stages, 1):
            scores = knn_classify(
                votes,
                reference_labels,
                asked,
                self.k,
                self.temperature,
                self.chunk_size,
            )
            figures[f'stage{stage}'] = accuracy(scores.argmax(1), labels)
        return {**figures, 'best': max(figures.values())}

    @staticmethod
    def _stack(rows: list) -> tuple[list[torch.Tensor], torch.Tensor]:
        feats, labels = zip(*rows, strict=True)
        stages = [torch.stack(stage) for stage in zip(*feats, strict=True)]
        return stages, torch.tensor(labels)
