"""Linear SVMs, a class against all others, for images of several classes."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from mm_rotssl.utils import InputError

from ..features import class_names
from ..functional import average_precision, check_memory
from ..labels import REFERENCE, TEST, label_matrix, list_classes, list_labels
from ..maps import extract_maps
from ..measurement import Measurement, Metric
from ..subject import Subject
from .base import Protocol

# the benchmark's, from the smallest
COSTS = tuple(
    sorted([10.0**n for n in range(-7, 3)] + [0.5**n for n in range(4, 20)])
)


@dataclass(frozen=True)
class SVM(Protocol):
    """An SVM a class, also where an image shows several, and with few labels.

    Source: Goyal, Mahajan, Gupta and Misra, *Scaling and Benchmarking
    Self-Supervised Visual Representation Learning*, ICCV 2019
    (https://arxiv.org/abs/1905.01235), and its code,
    https://github.com/facebookresearch/fair_self_supervision_benchmark, from
    which the settings are: the map of a stage is averaged to about 9,000
    numbers and divided by its length plus 1e-5; of the 26 costs 2^-19 to
    2^-4 and 1e-7 to 100 each class has the one with the best average
    precision in 3-fold cross-validation on the training set; squared hinge
    loss, images of the class weighing twice as much as others, at most 2,000
    rounds of liblinear's dual solver, whether it has converged or not.
    Classes that are marked as difficult are not judged in test images, and
    are absent in training images.

    With few labels k images that show a class and k times (classes - 1) that
    don't are drawn for it; larger k hold the smaller. The benchmark takes
    the cost that is best on the test images. Here it is the one that was
    chosen for the class on the whole training set: that knows more labels
    than k, but none of the test images.

    Reported on VOC07: 67.70 % for the fourth layer of mmselfsup's
    rotation-pred ResNet-50, with costs from 2^-19 to 100.

    Args:
        costs (Sequence[float]): To choose from. Defaults to the benchmark's.
        folds (int): Of the cross-validation. Defaults to 3.
        shots (Sequence[int]): Images a class of the runs with few labels.
            Defaults to (1, 2, 4, 8, 16, 32, 64, 96).
        draws (int): Draws of each of them. Defaults to 5.
        values (int): Maps are averaged over cells to about so many numbers,
            see `pool_to_values`. Defaults to 9,000.
    """

    costs: Sequence[float] = COSTS
    folds: int = 3
    shots: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 96)
    draws: int = 5
    values: int = 9000

    name = 'svm'
    title = 'Linear SVM'
    about = (
        'For each class a linear SVM tells its images from all others by the '
        'frozen map of a stage, averaged to about 9,000 numbers: the VOC07 '
        'protocol of Goyal et al., ICCV 2019. Its cost is chosen by '
        'cross-validation on the training images. An image may show several '
        'classes; so a class is judged by how its images rank among all test '
        'images, and a network by the mean over the classes. With few labels '
        'the mean over several draws is given; the cost is still that of the '
        'whole training set, where the benchmark takes the best one on the '
        'test images.'
    )
    labeled = True
    quick = False

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """See base class."""
        same = (
            'Guessing gives about the share of test images that show a '
            'class, averaged over the classes.'
        )
        return {
            'map': Metric(
                'mAP',
                'Mean over the classes of the area under the curve of '
                'precision over recall, at each recall the largest precision '
                "at that or more, as by the benchmark's code. " + same,
                '%',
                'higher',
            ),
            'map_11': Metric(
                'mAP, 11 points',
                'The same with the mean precision at recalls of 0, 0.1, ..., '
                '1, as by the rules of VOC 2007. ' + same,
                '%',
                'higher',
            ),
            'accuracy': Metric(
                'Accuracy',
                'Share of the test images whose class has the highest score. '
                'Missing where images show several classes.',
                '%',
                'higher',
            ),
            **{
                f'map_{shots}_shot': Metric(
                    f'mAP, {shots} a class',
                    f'mAP with {shots} training images a class, a figure a '
                    'draw. Missing where a class has fewer.',
                    '%',
                    'higher',
                )
                for shots in self.shots
            },
        }

    def run(self, subject: Subject) -> Iterator[Measurement]:
        """See base class.

        Args:
            subject (Subject): The network, and the images.

        Yields:
            Measurement: Of each stage.

        Raises:
            InputError: If an image has no label, a feature is not finite, or
                a class has too few training images.
        """
        assert subject.reference is not None
        assert subject.test is not None
        reference, test = (
            extract_maps(subject, images, self.values)
            for images in (subject.reference, subject.test)
        )
        self.count_images(reference.stages, self.folds)
        self.count_images(test.stages, 1)
        learned, tested = subject.reference.dataset, subject.test.dataset
        labels = list_labels(learned) | list_labels(tested)
        count = max([len(list_classes(learned)), *(k + 1 for k in labels)])
        present = label_matrix(learned, reference.index, count)
        asked = label_matrix(
            tested, test.index, count, subject.test_to_reference
        )
        # classes that no test image shows can not be judged
        judged = np.flatnonzero((asked == 1).any(0)).tolist()
        if not judged:
            raise InputError(f'svm: no image of {TEST} shows a class.')
        names = class_names((learned,), count)
        self._check(present[:, judged], [names[k] for k in judged])
        for feats in reference.stages.values():
            check_memory(*feats.shape)
        for stage in reference.stages:
            yield from self._measure(
                subject,
                stage,
                _unit_rows(reference.stages[stage]),
                present[:, judged],
                _unit_rows(test.stages[stage]),
                asked[:, judged],
            )

    def _check(self, present: np.ndarray, names: Sequence[str]) -> None:
        for column, name in zip(present.T, names, strict=True):
            shown = int((column == 1).sum())
            if not self.folds <= shown <= len(column) - self.folds:
                raise InputError(
                    f'svm: {shown} of {len(column)} images of {REFERENCE} '
                    f'show class "{name}", and its cost is chosen by '
                    f'{self.folds}-fold cross-validation. Add images, so '
                    f'that at least {self.folds} show it and as many do not.'
                )

    def _measure(
        self,
        subject: Subject,
        stage: str,
        feats: np.ndarray,
        present: np.ndarray,
        queries: np.ndarray,
        asked: np.ndarray,
    ) -> Iterator[Measurement]:
        classes = range(present.shape[1])
        seed = subject.seed
        costs, scores, precisions = [], [], []
        for k in classes:
            _tell(subject, f'stage {stage}, class {k + 1} of {len(classes)}')
            shown = present[:, k]
            costs.append(self._choose(feats, shown == 1, seed))
            ranked, precision = _precision(
                feats, shown, costs[k], seed, queries, asked[:, k]
            )
            scores.append(ranked)
            precisions.append(precision)
        chance = 100 * float(
            ((asked == 1).sum(0) / (asked >= 0).sum(0)).mean()
        )
        area, points = np.mean(precisions, 0).tolist()
        yield Measurement('map', stage, [area], chance)
        yield Measurement('map_11', stage, [points], chance)
        if ((asked == 1).sum(1) == 1).all():
            right = np.argmax(scores, 0) == asked.argmax(1)
            yield Measurement(
                'accuracy',
                stage,
                [100 * float(right.mean())],
                100 / len(classes),
                right.astype(np.float32),
            )
        for shots in self.shots:
            if ((present == 1).sum(0) < shots).any():
                _tell(subject, f'a class has fewer than {shots} images')
                continue
            values = []
            for draw in range(self.draws):
                _tell(
                    subject,
                    f'stage {stage}, {shots} a class, draw {draw + 1} of '
                    f'{self.draws}',
                )
                found = []
                for k in classes:
                    rows = draw_shots(
                        present[:, k], shots, len(classes), (seed, draw, k)
                    )
                    _, (area, _) = _precision(
                        feats[rows],
                        present[rows, k],
                        costs[k],
                        seed,
                        queries,
                        asked[:, k],
                    )
                    found.append(area)
                values.append(float(np.mean(found)))
            yield Measurement(f'map_{shots}_shot', stage, values, chance)

    def _choose(
        self, feats: np.ndarray, present: np.ndarray, seed: int
    ) -> float:
        """The cost with the best mean over the folds, the first of several."""
        with _however_converged():
            found = [
                cross_val_score(
                    _make(cost, seed),
                    feats,
                    present,
                    cv=self.folds,
                    scoring='average_precision',
                ).mean()
                for cost in self.costs
            ]
        return self.costs[int(np.argmax(found))]


def draw_shots(
    present: np.ndarray, shots: int, num_classes: int, seed: Sequence[int]
) -> np.ndarray:
    """Draw images that show a class, and others.

    Args:
        present (ndarray): 1 for those that show it, 0 for those that don't,
            -1 for those that are not drawn, int8 (N,).
        shots (int): How many show it.
        num_classes (int): So many times fewer one as many others, or all.
        seed (Sequence[int]): Of the draw; with the same one a larger draw
            holds the smaller ones.

    Returns:
        ndarray: Positions, int64, those that show it first.
    """
    rng = np.random.default_rng(seed)
    shown, others = (
        rng.permutation(np.flatnonzero(present == value)) for value in (1, 0)
    )
    return np.concatenate([shown[:shots], others[: shots * (num_classes - 1)]])


def _unit_rows(feats: torch.Tensor) -> np.ndarray:
    rows = feats.double().numpy()
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-5)


@contextmanager
def _however_converged() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)
        yield


def _make(cost: float, seed: int) -> LinearSVC:
    return LinearSVC(
        C=cost,
        class_weight={True: 2, False: 1},
        dual=True,
        tol=1e-4,
        max_iter=2000,
        random_state=seed,
    )


def _precision(
    feats: np.ndarray,
    present: np.ndarray,
    cost: float,
    seed: int,
    queries: np.ndarray,
    asked: np.ndarray,
) -> tuple[np.ndarray, tuple[float, float]]:
    """Scores of the queries, and see `average_precision`."""
    with _however_converged():
        svm = _make(cost, seed).fit(feats, present == 1)
    scores = svm.decision_function(queries)
    known = asked >= 0
    return scores, average_precision(scores[known], asked[known] == 1)


def _tell(subject: Subject, message: str) -> None:
    if subject.report is not None:
        subject.report(f'svm: {message}')
