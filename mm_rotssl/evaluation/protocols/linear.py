from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..functional import choose_penalty, linear_probe
from ..measurement import Measurement, Metric
from ..subject import Subject
from .base import Protocol, shots_title


@dataclass(frozen=True)
class LinearProbe(Protocol):
    """Classify by logistic regression on few or all labels, stage by stage.

    Source: scikit-learn's logistic regression on frozen features as in Chen
    et al., *A Simple Framework for Contrastive Learning of Visual
    Representations*, ICML 2020, appendix B.8.2 (L-BFGS, the penalty chosen on
    held-out training images). Theirs is chosen from 45 values; features are
    standardized here, so that five suit all networks.

    Args:
        shots (Sequence[int | str]): Labels a class, shares of them such as
            '1%', or 'all', see :meth:`Features.draw`; what the smallest class
            does not have is left out. Defaults to (1, 5, 10, 'all').
        draws (int): Draws of the labels, the same for every network.
            Defaults to 3.
        c_grid (Sequence[float]): Inverse strengths of the penalty, among
            which one is chosen for each fit, see `choose_penalty`. Defaults
            to powers of ten from 0.001 to 10.
    """

    shots: tuple[int | str, ...] = (1, 5, 10, 'all')
    draws: int = 3
    c_grid: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)

    name = 'linear'
    title = 'Linear probe'
    about = (
        'Logistic regression on the frozen features of a stage, averaged '
        'over their positions and scaled to mean 0 and variance 1. The '
        'penalty is chosen on a held-out part of the labels that are trained '
        'on, never on the test images; with one label a class it is fixed '
        '(C = 1). Accuracy on the test images. More labels a class than the '
        'smallest class has are left out.'
    )
    labeled = True

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """One for each number of labels."""
        return {
            str(shots): Metric(
                shots_title(shots),
                'Accuracy on the test images.',
                '%',
                'higher',
            )
            for shots in self.shots
        }

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: One for each stage and number of labels.

        Raises:
            InputError: If a class has too few images for any of them.
        """
        feats = subject.features
        chosen = feats.draw_possible(self.shots, self.draws, subject.seed)
        device = next(subject.model.parameters()).device
        for stage, reference, queries in zip(
            feats.stages, feats.reference, feats.test, strict=True
        ):
            for shots, draws in chosen.items():
                if subject.report is not None:
                    subject.report(
                        f'linear probe, stage {stage}, {shots} labels'
                    )
                correct = []
                for places in draws:
                    # without a copy of all rows that are mapped
                    rows = reference if shots == 'all' else reference[places]
                    labels = feats.reference_labels[places]
                    c = choose_penalty(
                        rows,
                        labels,
                        self.c_grid,
                        subject.seed,
                        device=device,
                    )
                    found = linear_probe(
                        rows, labels, queries, c, device=device
                    )
                    correct.append((found == feats.test_labels).numpy())
                yield Measurement(
                    str(shots),
                    stage,
                    [100 * float(right.mean()) for right in correct],
                    feats.chance,
                    np.array(correct, np.float32).mean(0),
                )
