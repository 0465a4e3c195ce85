"""A linear SVM on the features, as Exemplar-CNN's papers measure them.

The features of all stages, each max-pooled over a few cells and divided by
its 99.99th percentile, are classified by a one-against-rest SVM, whose C is
chosen on training images that are held out. See `svm_classify`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mm_rotssl.ops import pool_cells

from ..features import Features
from ..functional import (
    accuracy,
    check_memory,
    choose_c,
    percentile_scale,
    svm_classify,
)
from ..measurement import Measurement, Metric
from ..subject import Subject
from .base import Protocol

# every so many-th image of each class is held out for the choice of C where
# all are trained on
HELD_OUT = 5


@dataclass(frozen=True)
class ExemplarSVM(Protocol):
    """Settings of the authors' code, and the measurement.

    Where it departs from their code: docs/exemplar_cnn.md.

    Args:
        c_range (tuple[float, float]): Lowest and highest C that is tried.
        bias (float): What liblinear's B is.
        trials (int): Number of Cs that are tried.
        labels (int, optional): Labels a class in each draw; None: all.
        draws (int): Number of draws or folds.
        folds (bool): Whether the training set has predefined folds.
        input_size (int, optional): Side to which images are scaled, in
            pixels; None: as they are.
        levels (tuple[int, ...]): Cells along a side, see `pool_cells`.
        test_rest (int, optional): Test on at most so many others a class of
            the training set instead of the test set.
        by_class (bool): Average over the classes, not the images.
    """

    c_range: tuple[float, float] = (1e-3, 1.0)
    bias: float = 1.0
    trials: int = 50
    labels: int | None = None
    draws: int = 1
    folds: bool = False
    input_size: int | None = None
    levels: tuple[int, ...] = (2,)
    test_rest: int | None = None
    by_class: bool = False

    name = 'exemplar-svm'
    title = "SVM of Exemplar-CNN's papers"
    about = (
        'The features of all stages, each max-pooled over its quadrants and '
        'divided by its 99.99th percentile, are classified together by a '
        'one-against-rest linear SVM, whose C is chosen on training images '
        'that are held out: the protocol of Exemplar-CNN (Dosovitskiy et '
        'al., TPAMI 2016). It measures a network, not a stage.'
    )
    labeled = True
    quick = False
    metrics = {
        'accuracy': Metric(
            'Accuracy',
            'Share of the test images whose class is predicted, one figure '
            'for each fold or draw of labels.',
            '%',
            'higher',
        ),
        'held_out': Metric(
            'Held out',
            'Accuracy on the images that C is chosen on: too good, being '
            'the best of many.',
            '%',
        ),
        'c': Metric('C', 'Weight of errors beside the width of the margin.'),
    }

    def pool(
        self, feats: torch.Tensor | Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Pool what a backbone gives, see `pool_cells`.

        Args:
            feats (Tensor | Sequence[Tensor]): A stage each.

        Returns:
            tuple[Tensor, ...]: (N, C) for each stage.
        """
        return pool_cells(feats, self.levels)

    def split(
        self, feats: Features, dataset: Any, seed: int
    ) -> list[torch.Tensor]:
        """Choose the training images, the same for every network.

        Args:
            feats (Features): Of any network.
            dataset (Any): The training images, perhaps with ``folds()``.
            seed (int): Of the draws.

        Returns:
            list[Tensor]: Of each fold or draw the positions, int64.

        Raises:
            ValueError: If there are no predefined folds, or too few labels.
        """
        if self.folds:
            if not hasattr(dataset, 'folds'):
                raise ValueError(
                    f'A {type(dataset).__name__} has no predefined folds: '
                    "use mm_rotssl.STL10 with split='train', or --protocol "
                    'few.'
                )
            folds = [torch.from_numpy(fold) for fold in dataset.folds()]
            return folds[: self.draws]
        if self.labels is None:
            return [torch.arange(len(feats.reference_labels))]
        return feats.draw(self.labels, self.draws, seed)

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: Of all stages together.

        Raises:
            ValueError: See :meth:`split`.
        """
        reference, test = subject.reference, subject.test
        assert reference is not None
        assert test is not None
        mapping = subject.test_to_reference
        if self.test_rest is not None:
            test, mapping = reference, None
        feats = Features.extract(
            subject.model,
            reference,
            test,
            mapping,
            subject.store,
            pool=self.pool,
            input_size=self.input_size,
            report=subject.report,
        )
        splits = self.split(feats, reference.dataset, subject.seed)
        check_memory(
            max(map(len, splits)),
            sum(stage.size(1) for stage in feats.reference),
        )
        c, held_out = self._choose_c(
            feats.reference, feats.reference_labels, splits[0], subject.seed
        )
        values, hits = [], []
        for predicted, answers in self._classify(
            feats, splits, c, subject.seed, subject.report or (lambda _: None)
        ):
            values.append(accuracy(predicted, answers, self.by_class))
            hits.append((predicted == answers).float().numpy())
        same_images = self.test_rest is None and not self.by_class
        yield Measurement(
            'accuracy',
            None,
            values,
            feats.chance,
            np.mean(hits, 0) if same_images else None,
        )
        yield Measurement('held_out', None, [100 * held_out])
        yield Measurement('c', None, [c])

    def measure(
        self,
        feats: Features,
        splits: Sequence[torch.Tensor],
        seed: int,
        report: Callable[[str], None],
    ) -> dict[str, Any]:
        """Choose C on the first split, and classify with each of them.

        Args:
            feats (Features): Of a network, pooled by :meth:`pool`.
            splits (Sequence[Tensor]): See :meth:`split`.
            seed (int): Of the Cs, the solver and the rest to test on.
            report (Callable): Is told what is being done.

        Returns:
            dict[str, Any]: ``c``, ``held_out_accuracy`` in percent,
            ``accuracy`` of each split in percent, and ``features``, the
            number of each stage's.
        """
        report('choosing C')
        c, held_out = self._choose_c(
            feats.reference, feats.reference_labels, splits[0], seed
        )
        return dict(
            c=c,
            held_out_accuracy=100 * held_out,
            accuracy=[
                accuracy(predicted, answers, self.by_class)
                for predicted, answers in self._classify(
                    feats, splits, c, seed, report
                )
            ],
            features=[stage.size(1) for stage in feats.reference],
        )

    def _classify(
        self,
        feats: Features,
        splits: Sequence[torch.Tensor],
        c: float,
        seed: int,
        report: Callable[[str], None],
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Predicted and true classes of each split."""
        reference, labels = feats.reference, feats.reference_labels
        for i, chosen in enumerate(splits):
            report(f'SVM {i + 1} of {len(splits)}')
            queries, answers = feats.test, feats.test_labels
            if self.test_rest is not None:
                rest = draw_rest(chosen, labels, self.test_rest, seed)
                queries = [stage[rest] for stage in reference]
                answers = labels[rest]
            train, asked = percentile_scale(
                [stage[chosen] for stage in reference], queries
            )
            yield (
                svm_classify(train, labels[chosen], asked, c, self.bias, seed),
                answers,
            )

    def _choose_c(
        self,
        feats: list[torch.Tensor],
        labels: torch.Tensor,
        chosen: torch.Tensor,
        seed: int,
    ) -> tuple[float, float]:
        """Hold out what the split leaves over."""
        left = draw_rest(chosen, labels, None, seed)
        if not len(left):
            held = torch.zeros(len(labels), dtype=torch.bool)
            for label in labels.unique():
                held[(labels == label).nonzero()[::HELD_OUT, 0]] = True
            chosen, left = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
        train, held_out = percentile_scale(
            [stage[chosen] for stage in feats],
            [stage[left] for stage in feats],
        )
        return choose_c(
            train,
            labels[chosen],
            held_out,
            labels[left],
            self.c_range,
            self.trials,
            self.bias,
            seed,
        )


def draw_rest(
    chosen: torch.Tensor, labels: torch.Tensor, most: int | None, seed: int
) -> torch.Tensor:
    """Draw images that are not chosen.

    Args:
        chosen (Tensor): Positions of the chosen ones, int64.
        labels (Tensor): Classes of all images, int64 (M,).
        most (int, optional): At most so many a class; None: all.
        seed (int): Of the draw.

    Returns:
        Tensor: Positions, int64, class by class.
    """
    free = torch.ones(len(labels), dtype=torch.bool)
    free[chosen] = False
    rng = np.random.default_rng(seed)
    positions = []
    for label in labels.unique():
        found = rng.permutation((free & (labels == label)).nonzero()[:, 0])
        positions.append(torch.from_numpy(found[:most]))
    return torch.cat(positions)


SVM_PROTOCOLS = {
    'stl10': ExemplarSVM(c_range=(2e-4, 2e-1), bias=5.0, draws=10, folds=True),
    'cifar10': ExemplarSVM(input_size=64, trials=30),
    'cifar10-400': ExemplarSVM(input_size=64, labels=400, draws=10),
    'caltech101': ExemplarSVM(
        c_range=(2e-3, 1.0),
        trials=30,
        labels=30,
        draws=10,
        input_size=150,
        levels=(1, 2, 4),
        test_rest=50,
        by_class=True,
    ),
    'all': ExemplarSVM(),
    'few': ExemplarSVM(labels=10, draws=10),
}


def svm_protocol(name: str, **changes: int | None) -> ExemplarSVM:
    """Take a published protocol, perhaps with other numbers.

    Args:
        name (str): One of `SVM_PROTOCOLS`.
        **changes (int | None): ``labels``, ``draws``, ``trials`` and
            ``input_size``; None: the protocol's own.

    Returns:
        ExemplarSVM: The settings.

    Raises:
        ValueError: If there is no such protocol, or it has predefined folds
            and a number of labels is given.
    """
    if name not in SVM_PROTOCOLS:
        raise ValueError(
            f'--protocol {name}: known are {", ".join(SVM_PROTOCOLS)}.'
        )
    protocol = SVM_PROTOCOLS[name]
    given: dict[str, Any] = {
        key: value for key, value in changes.items() if value is not None
    }
    if 'labels' in given and protocol.folds:
        raise ValueError(
            f'--labels {given["labels"]}: protocol {name} has predefined '
            'folds.'
        )
    return replace(protocol, **given)
