from dataclasses import dataclass

from ..features import Features
from ..functional import accuracy, knn_classify


@dataclass(frozen=True)
class KNN:
    """Let the whole reference set vote, stage by stage.

    Args:
        k (int): Number of neighbors. Defaults to 20.
        temperature (float): Of the votes, see `knn_classify`. Defaults to
            0.07.
    """

    k: int = 20
    temperature: float = 0.07

    def run(self, feats: Features) -> list[float]:
        """Measure the accuracy on the test images.

        Args:
            feats (Features): Of a network.

        Returns:
            list[float]: Accuracy of each stage, in percent.
        """
        return [
            accuracy(
                knn_classify(
                    reference,
                    feats.reference_labels,
                    queries,
                    self.k,
                    self.temperature,
                ).argmax(1),
                feats.test_labels,
            )
            for reference, queries in zip(
                feats.reference, feats.test, strict=True
            )
        ]
