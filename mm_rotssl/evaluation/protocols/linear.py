from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..features import Features
from ..functional import accuracy, linear_probe


@dataclass(frozen=True)
class LinearProbe:
    """Classify by logistic regression on few or all labels, stage by stage.

    Args:
        draws (Mapping[str, Sequence[Tensor]]): Number of labels a class, or
            'all' -> for each draw the positions in the reference set, int64,
            see `Features.draw`. Networks are compared in pairs where all
            get the same.
    """

    draws: Mapping[str, Sequence[torch.Tensor]]

    def run(self, feats: Features) -> list[dict[str, list[float]]]:
        """Measure the accuracy on the test images.

        Args:
            feats (Features): Of a network.

        Returns:
            list[dict[str, list[float]]]: Of each stage: labels a class ->
            accuracy of each draw, in percent.
        """
        return [
            {
                shots: [
                    accuracy(
                        linear_probe(
                            reference[chosen],
                            feats.reference_labels[chosen],
                            queries,
                        ),
                        feats.test_labels,
                    )
                    for chosen in draws
                ]
                for shots, draws in self.draws.items()
            }
            for reference, queries in zip(
                feats.reference, feats.test, strict=True
            )
        ]
