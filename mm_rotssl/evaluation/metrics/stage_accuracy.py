from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from mm_rotssl.registry import METRICS


@METRICS.register_module()
class StageAccuracy(BaseMetric):
    """Accuracy of the classifier of each stage, in percent.

    Args:
        topk (Sequence[int]): An image counts as right if its class is among
            so many with the highest scores. Defaults to (1,).
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.

    Results: ``accuracy/stage{i}_top{k}``, stages counted from 1.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: Sequence[int] = (1,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.topk = tuple(topk)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note at which place the class of each image is.

        Args:
            data_batch (Any): Not read.
            data_samples (Sequence[dict]): With ``gt_label`` (1,) and
                ``stage_scores`` (S, K), see :class:`MultiLinearHead`.

        Raises:
            KeyError: If a sample has no ``stage_scores``.
        """
        for sample in data_samples:
            if 'stage_scores' not in sample:
                raise KeyError(
                    'StageAccuracy found no stage_scores: use it with '
                    "model.head=dict(type='mm_rotssl.MultiLinearHead')."
                )
            scores = sample['stage_scores']
            own = scores[:, int(sample['gt_label'])]
            # an equal score of another class comes first
            places = (scores >= own[:, None]).sum(1)
            self.results.append(places.cpu())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average over the images.

        Args:
            results (list[Tensor]): Of each image the place of its class by
                score, from 1, in each stage, int64 (S,).

        Returns:
            dict[str, float]: percent.
        """
        places = torch.stack(results)
        return {
            f'stage{i}_top{k}': 100 * (stage <= k).double().mean().item()
            for i, stage in enumerate(places.T, 1)
            for k in self.topk
        }
