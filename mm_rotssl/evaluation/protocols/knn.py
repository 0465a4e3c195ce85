from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mm_rotssl.utils import InputError

from ..functional import search_neighbors, vote
from ..measurement import Measurement, Metric
from ..subject import Subject
from .base import Protocol


@dataclass(frozen=True)
class KNN(Protocol):
    """Let the nearest images of the reference set vote, stage by stage.

    Source: Wu et al., *Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination*, CVPR 2018, section 3.4 (k = 200, temperature
    0.07); the other numbers of neighbors are those of DINO's evaluation
    (Caron et al., ICCV 2021), where 10 or 20 are mostly best.

    Args:
        k (Sequence[int]): Numbers of neighbors; those above the number of
            reference images are left out. Defaults to (20, 10, 100, 200).
        temperature (float): Of the votes, see `vote`. Defaults to
            0.07.
    """

    k: tuple[int, ...] = (20, 10, 100, 200)
    temperature: float = 0.07

    name = 'knn'
    title = 'Nearest neighbors'
    about = (
        'The k nearest images to learn from, by cosine, vote for the class '
        'of a test image with weights exp(cosine / temperature) (Wu et al., '
        'CVPR 2018, section 3.4, where it is 0.07). Nothing is trained: it '
        'tells how well the features are arranged as they are. The first k '
        'is the one that remarks and figures are about. A k above the number '
        'of images to learn from is left out.'
    )
    labeled = True

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """One for each number of neighbors."""
        return {
            f'k={k}': Metric(
                f'k = {k}', 'Accuracy on the test images.', '%', 'higher'
            )
            for k in self.k
        }

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: One for each stage and number of neighbors.

        Raises:
            InputError: If there are fewer reference images than the smallest
                number of neighbors.
        """
        feats = subject.features
        count = len(feats.reference_labels)
        if min(self.k) > count:
            raise InputError(
                f'kNN with k={min(self.k)} needs as many labeled images to '
                f'learn from, got {count}. Add images, or set '
                f'--protocol-options knn.k=[{count}].'
            )
        ks = [k for k in self.k if k <= count]
        left_out = [str(k) for k in self.k if k > count]
        if left_out and subject.report is not None:
            subject.report(
                f'kNN: k = {", ".join(left_out)} left out, there are only '
                f'{count} images to learn from'
            )
        for stage, reference, queries in zip(
            feats.stages, feats.reference, feats.test, strict=True
        ):
            # of the most neighbors the first are the fewer
            similarity, positions = search_neighbors(
                reference, queries, max(ks)
            )
            labels = feats.reference_labels[positions]
            for k in ks:
                scores = vote(
                    similarity[:, :k],
                    labels[:, :k],
                    len(feats.classes),
                    self.temperature,
                )
                right = scores.argmax(1) == feats.test_labels
                yield Measurement(
                    f'k={k}',
                    stage,
                    [100 * right.double().mean().item()],
                    feats.chance,
                    right.float().numpy(),
                )
