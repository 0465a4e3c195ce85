from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, Runner, TestLoop, ValLoop
from mmengine.runner.amp import autocast
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader

from mm_rotssl.evaluation import KNNAccuracy
from mm_rotssl.evaluation.labels import match_labels
from mm_rotssl.models.utils import set_feats
from mm_rotssl.ops import pool_features
from mm_rotssl.registry import LOOPS
from mm_rotssl.utils import unwrap_model


class _KNNLoop(BaseLoop):
    """What validation and testing with a reference set have in common."""

    # of the names of the hooks' methods
    _part: str

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        reference_dataloader: DataLoader | dict,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        if isinstance(reference_dataloader, dict):
            reference_dataloader = runner.build_dataloader(
                reference_dataloader, seed=runner.seed
            )
        self.reference_dataloader: Any = reference_dataloader
        metrics = self._knn_metrics()
        if metrics:
            # both are built by now
            reference: Any = self.reference_dataloader
            test: Any = self.dataloader
            test_to_reference = match_labels(reference.dataset, test.dataset)
            for metric in metrics:
                metric.test_to_reference = test_to_reference

    def _knn_metrics(self) -> list[KNNAccuracy]:
        return [
            metric
            for metric in self.evaluator.metrics
            if isinstance(metric, KNNAccuracy)
        ]

    def run(self) -> dict:
        """Run the reference set and the images to classify.

        Returns:
            dict: The metrics.
        """
        self.runner.model.eval()
        metrics = self._knn_metrics()
        for data_batch in self.reference_dataloader if metrics else ():
            samples = [
                sample.to_dict() for sample in self._features(data_batch)
            ]
            for metric in metrics:
                metric.process_reference(
                    samples, len(self.reference_dataloader.dataset)
                )
        return super().run()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Run a batch.

        Args:
            idx (int): Number of the batch.
            data_batch (Any): What the dataloader gave.
        """
        if hasattr(self._model, 'predict'):
            return super().run_iter(idx, data_batch)
        self.runner.call_hook(
            f'before_{self._part}_iter', batch_idx=idx, data_batch=data_batch
        )
        outputs = self._features(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            f'after_{self._part}_iter',
            batch_idx=idx,
            data_batch=data_batch,
            outputs=outputs,
        )
        return None

    @property
    def _model(self) -> torch.nn.Module:
        return unwrap_model(self.runner.model)

    @torch.no_grad()
    def _features(self, data_batch: Any) -> Sequence[DataSample]:
        """The samples of a batch with their pooled features."""
        model: Any = self._model
        data = model.data_preprocessor(data_batch, False)
        with autocast(enabled=self.fp16):
            feats = pool_features(model(data['inputs'], mode='tensor'))
        set_feats(data['data_samples'], feats)
        return data['data_samples']


@LOOPS.register_module()
class KNNValLoop(_KNNLoop, ValLoop):
    """Validation with a reference set for :class:`KNNAccuracy`.

    Before the validation set, the reference set goes through the network;
    only the kNN metrics see it. It and the validation set are independent of
    the training set, which needs no labels; their classes are matched by
    name.

    Algorithms that have no ``predict``, such as mmpretrain's own, are run as
    feature extractors, so kNN accuracy works for them as well.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The images to classify.
        evaluator (Evaluator | dict | list): The metrics.
        reference_dataloader (DataLoader | dict): The labeled images that vote.
        fp16 (bool): Validate under autocast. Defaults to False.

    Raises:
        ValueError: If a class of the validation set is not in the reference
            set.
    """

    _part = 'val'


@LOOPS.register_module()
class KNNTestLoop(_KNNLoop, TestLoop):
    """Testing with a reference set, as :class:`KNNValLoop` validates.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The images to classify.
        evaluator (Evaluator | dict | list): The metrics.
        reference_dataloader (DataLoader | dict): The labeled images that vote.
        fp16 (bool): Test under autocast. Defaults to False.

    Raises:
        ValueError: If a class of the test set is not in the reference set.
    """

    _part = 'test'
