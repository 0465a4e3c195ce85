import random
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from mm_rotssl.registry import METRICS

from ..functional import linear_probe

PARTS = ('related', 'unrelated')


@METRICS.register_module()
class DecouplingProbe(BaseMetric):
    """How much each part of a divided representation knows of the rotation.

    A new linear classifier of the rotation is trained on each part, on one
    half of the images, and tested on the other half. The accuracy that
    :class:`RotationAccuracy` reports for the unrelated part, as the paper's
    code does, is that of a classifier which was trained on the *other* part:
    it is near chance whatever the part knows.

    Args:
        max_images (int): How many images of the validation set are used,
            drawn at random, the same ones each time; R rows are made of
            each. Defaults to 1000.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.

    Results, in percent: ``decoupling/related`` and
    ``decoupling/unrelated``, accuracies; the former should be high, the
    latter near chance. ``decoupling/related_variance`` and
    ``decoupling/unrelated_variance``: the share of the part's variance over
    all copies that is between the copies of an image; 0 if the part does
    not change with the rotation.

    Raises:
        ValueError: If ``max_images`` is below 2.
    """

    default_prefix = 'decoupling'

    def __init__(self, max_images: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_images < 2:
            raise ValueError(
                f'max_images={max_images} of DecouplingProbe: at least 2.'
            )
        self.max_images = max_images
        self._start()

    def _start(self) -> None:
        # of the drawn images, their places in `results`
        self._kept: list[int] = []
        self._random = random.Random(0)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take in both parts of each image.

        Args:
            data_batch (Any): Not read.
            data_samples (Sequence[dict]): With ``related_feats`` and
                ``unrelated_feats``, (R, C) each, see
                ``predict`` of :class:`RotationFeatureDecoupling`.

        Raises:
            KeyError: If a sample has no such parts.
        """
        for sample in data_samples:
            if 'unrelated_feats' not in sample:
                raise KeyError(
                    'DecouplingProbe found no unrelated_feats: the model '
                    'does not divide its features. Remove it from '
                    'val_evaluator.'
                )
            # Reservoir sampling: datasets are often sorted by class, and
            # their size is not known yet. The empty places keep the count by
            # which repeated images are told.
            place = len(self.results)
            self.results.append(None)
            if len(self._kept) < self.max_images:
                self._kept.append(place)
            else:
                other = self._random.randrange(place + 1)
                if other >= self.max_images:
                    continue
                self.results[self._kept[other]] = None
                self._kept[other] = place
            # copies, not views of their batch
            self.results[place] = tuple(
                sample[f'{part}_feats'].cpu().clone() for part in PARTS
            )

    def evaluate(self, size: int) -> dict[str, float]:
        """Compute over all processes.

        Args:
            size (int): Number of images in the validation set.

        Returns:
            dict[str, float]: See the class, the same on every process.
        """
        self._start()
        return super().evaluate(size)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Train and test the probes.

        Args:
            results (list[tuple[Tensor, Tensor] | None]): Parts of each
                image.

        Returns:
            dict[str, float]: percent.
        """
        images = [row for row in results if row is not None]
        # each process kept as many
        images = random.Random(0).sample(
            images, min(len(images), self.max_images)
        )
        figures = {}
        for place, name in enumerate(PARTS):
            # (N, R, C)
            feats = torch.stack([image[place] for image in images])
            labels = torch.arange(feats.size(1)).repeat(len(feats), 1)
            predicted = linear_probe(
                feats[::2].flatten(0, 1),
                labels[::2].flatten(),
                feats[1::2].flatten(0, 1),
            )
            hits = (predicted == labels[1::2].flatten()).double()
            figures[name] = 100 * hits.mean().item()
            feats = feats.double()
            within = feats.var(1, correction=0).sum(1).mean()
            total = feats.flatten(0, 1).var(0, correction=0).sum()
            figures[f'{name}_variance'] = 100 * (within / total).item()
        return figures
