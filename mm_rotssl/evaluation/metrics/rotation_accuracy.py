from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from mm_rotssl.registry import METRICS


@METRICS.register_module()
class RotationAccuracy(BaseMetric):
    """Share of rotated copies whose rotation is recognized, in percent.

    Every image counts with all its rotations, so chance is 100 / R. Right
    under several processes with a padded last batch.

    Args:
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.

    Results: ``rotation/accuracy``, and ``rotation/accuracy_{r}`` for the
    copies rotated by the algorithm's ``rotations[r]``. Of an algorithm that
    divides its features also ``rotation/unrelated_accuracy``, what its
    classifier makes of the part that should not know the rotation.
    """

    default_prefix = 'rotation'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note which copies of each image are recognized.

        Args:
            data_batch (Any): Not read.
            data_samples (Sequence[dict]): With ``rotation_scores`` (R, R),
                see :meth:`RotNet.predict_fields`.

        Raises:
            KeyError: If a sample has no ``rotation_scores``.
        """
        for sample in data_samples:
            if 'rotation_scores' not in sample:
                raise KeyError(
                    'RotationAccuracy found no rotation_scores: the model '
                    'predicts no rotations. Remove it from val_evaluator.'
                )
            hits = {}
            for part in ('rotation_scores', 'unrelated_rotation_scores'):
                if part in sample:
                    scores = sample[part]
                    truth = torch.arange(len(scores), device=scores.device)
                    hits[part] = (scores.argmax(1) == truth).cpu()
            self.results.append(hits)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average over the images.

        Args:
            results (list[dict[str, Tensor]]): Hits of each image, bool
                (R,), by the scores that they are from.

        Returns:
            dict[str, float]: percent.
        """
        hits = {
            part: 100 * torch.stack([hit[part] for hit in results]).double()
            for part in results[0]
        }
        accuracy = hits['rotation_scores'].mean(0)
        figures = {
            'accuracy': accuracy.mean().item(),
            **{f'accuracy_{r}': hit.item() for r, hit in enumerate(accuracy)},
        }
        if 'unrelated_rotation_scores' in hits:
            unrelated = hits['unrelated_rotation_scores'].mean()
            figures['unrelated_accuracy'] = unrelated.item()
        return figures
