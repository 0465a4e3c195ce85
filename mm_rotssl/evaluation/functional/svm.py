"""How good are frozen features for a linear SVM? Exemplar-CNN's protocol.

The features of all layers are max-pooled over a few cells each
(`pool_cells`), brought to one scale (`percentile_scale`) and classified by a
linear SVM (`svm_classify`), whose ``C`` is chosen on training images that
were held out (`choose_c`). `draw_labels` draws a training set of so many
images a class.

Source: Dosovitskiy et al., *Discriminative Unsupervised Feature Learning with
Exemplar Convolutional Neural Networks*, TPAMI 2016
(https://arxiv.org/abs/1406.6909), and the evaluation code the authors
released. Their settings:

=============  ========  ==============  ======  ====
images       levels    range of ``C``  trials  bias
=============  ========  ==============  ======  ====
STL-10         2         2e-4 to 2e-1    50      5
CIFAR-10       2         1e-3 to 1       50      1
Caltech-101    1, 2, 4   2e-3 to 1       30      1
=============  ========  ==============  ======  ====
"""

import os
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from mm_rotssl.utils import InputError

# of memory that liblinear takes for a number of the training features
BYTES = 24

# ten times liblinear's own limit
MAX_ITER = 10_000
# liblinear's default for this solver, and so the authors' value; that of
# scikit-learn, 1e-4, takes many times as long
TOLERANCE = 0.1


def percentile_scale(
    train: Sequence[torch.Tensor], *others: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Bring the stages to one scale and put them side by side.

    Every stage is divided by one number: the 99.99th percentile of its
    training features, over images and channels alike, linear between
    neighbors. So a few huge values don't shrink a whole stage, and no stage
    outweighs another. Features of a layer without a ReLU can be negative, so
    the percentile is of their absolute values; after a ReLU this is the same.
    A stage whose percentile is 0, a dead layer, stays as it is.

    The authors' code takes the percentile of each batch, in training and test
    separately. An image's features then depend on what else is in its batch;
    here the other sets are divided by the same numbers as the training set.

    Args:
        train (Sequence[Tensor]): Training features (M, C), float32, one
            tensor a stage, such as `pool_cells` gives.
        others (Sequence[Tensor]): The same stages of other images: those
            held out, those to classify.

    Returns:
        tuple[Tensor, ...]: Scaled features (M, sum of C) of the training set
        and of each of the others.

    Raises:
        ValueError: If the sets differ in the number of stages.

    Examples:
        >>> import torch
        >>> train = torch.full((3, 2), 4.0), torch.full((3, 1), 0.5)
        >>> test = torch.tensor([[2.0, 4.0]]), torch.tensor([[1.0]])
        >>> percentile_scale(train, test)[1].tolist()
        [[0.5, 1.0, 2.0]]
    """
    for other in others:
        if len(other) != len(train):
            raise ValueError(
                f'The training features have {len(train)} stages, others '
                f'have {len(other)}. Take both from the same layers.'
            )
    # no division by a percentile of 0
    divisors = [
        float(np.percentile(stage.abs().cpu().numpy(), 99.99)) or 1.0
        for stage in train
    ]
    return tuple(
        torch.cat([s / d for s, d in zip(stages, divisors, strict=True)], 1)
        for stages in (train, *others)
    )


def check_memory(images: int, features: int) -> None:
    """Check that liblinear can copy its training features.

    Args:
        images (int): How many to learn from.
        features (int): Numbers of each.

    Raises:
        InputError: If it needs more than this machine's memory.
    """
    needed = BYTES * images * features
    there = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if needed > there:
        raise InputError(
            f'A linear SVM on {images} images of {features} features takes '
            f'about {needed / 1e9:.0f} GB, and this machine has '
            f'{there / 1e9:.0f}. Learn from fewer: --max-reference '
            f'{int(there / BYTES / features)}.'
        )


def svm_classify(
    train_feats: torch.Tensor,
    train_labels: torch.Tensor,
    queries: torch.Tensor,
    c: float,
    bias: float = 1.0,
    seed: int = 0,
) -> torch.Tensor:
    r"""Classify by a linear support vector machine.

    For each class, against all others (:math:`y_i = \pm 1`), it minimizes

    .. math::
        \frac{1}{2} \lVert w \rVert^2
        + C \sum_i \max(0, 1 - y_i\, w \cdot (x_i, B))^2

    by liblinear's dual solver (its ``-s 1``; scikit-learn's ``LinearSVC``).
    The intercept is the weight of the constant :math:`B`, so it is penalized
    too, the less the larger :math:`B`. A query's class is the one of the
    largest :math:`w \cdot (x, B)`.

    liblinear calculates in float64 and takes up to 24 bytes for each number
    of ``train_feats``: 4.6 GB for 50,000 images of 3,840 features, see
    `check_memory`. It ends at its own tolerance, 0.1, or after 10,000 rounds
    over the images.

    Args:
        train_feats (Tensor): Training features (M, C), any float type.
        train_labels (Tensor): Their classes, int64 (M,), two or more
            different.
        queries (Tensor): Features to classify (N, C).
        c (float): :math:`C`, see `choose_c`.
        bias (float): :math:`B`. Defaults to 1.
        seed (int): Of the order in which the solver visits the images.
            Defaults to 0.

    Returns:
        Tensor: Predicted classes, int64 (N,), on the CPU.

    Warns:
        ConvergenceWarning: scikit-learn's; if the solver was stopped, so that
            the classifier is an approximation.

    Examples:
        >>> import torch
        >>> feats = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
        >>> labels = torch.tensor([7, 7, 2, 2])
        >>> query = torch.tensor([[0.5], [6.0]])
        >>> svm_classify(feats, labels, query, c=1.0).tolist()
        [7, 2]
    """
    svm = _fit(_float64(train_feats), train_labels.cpu(), c, bias, seed)
    if svm.n_iter_ >= MAX_ITER:
        warnings.warn(
            f'The SVM with C={c:g} had not converged after {MAX_ITER} '
            'iterations; its predictions are approximate. A smaller C '
            'converges sooner, and so do scaled features '
            '(percentile_scale).',
            ConvergenceWarning,
            stacklevel=2,
        )
    return torch.from_numpy(svm.predict(_float64(queries)))


def choose_c(
    train_feats: torch.Tensor,
    train_labels: torch.Tensor,
    held_out_feats: torch.Tensor,
    held_out_labels: torch.Tensor,
    c_range: tuple[float, float],
    trials: int,
    bias: float = 1.0,
    seed: int = 0,
) -> tuple[float, float]:
    """Choose the ``C`` of `svm_classify` by random search.

    ``trials`` values are drawn from ``c_range``, their logarithms uniformly;
    the one with the best accuracy on the held-out images is taken, the
    smallest of several. What is held out has to be part of the training set:
    a ``C`` chosen on the test set would make the result too good.

    Args:
        train_feats (Tensor): Training features (M, C), any float type,
            without the held-out ones.
        train_labels (Tensor): Their classes, int64 (M,), two or more
            different.
        held_out_feats (Tensor): Held-out features (H, C).
        held_out_labels (Tensor): Their classes, int64 (H,).
        c_range (tuple[float, float]): Smallest and largest ``C``.
        trials (int): Number of draws.
        bias (float): See `svm_classify`. Defaults to 1.
        seed (int): Of the draws and of the solver. Defaults to 0.

    Returns:
        tuple[float, float]: The chosen ``C``, and the share of the held-out
        images that it classifies correctly, from 0 to 1.

    Raises:
        ValueError: If the range holds no positive numbers or there are no
            trials.

    Warns:
        ConvergenceWarning: scikit-learn's, once; if the solver was stopped in
            some of the trials.

    Examples:
        >>> import torch
        >>> feats = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
        >>> labels = torch.tensor([7, 7, 2, 2])
        >>> c, accuracy = choose_c(
        ...     feats, labels, feats + 0.1, labels, (0.1, 1.0), trials=5
        ... )
        >>> 0.1 <= c <= 1.0, accuracy
        (True, 1.0)
    """
    low, high = c_range
    if not 0 < low <= high or trials < 1:
        raise ValueError(
            f'c_range={c_range} and trials={trials} of the SVM: the range '
            'must be two positive numbers, the smaller one first, with at '
            'least one trial.'
        )
    rng = np.random.default_rng(seed)
    draws = np.exp(rng.uniform(np.log(low), np.log(high), trials)).tolist()
    train, held_out = _float64(train_feats), _float64(held_out_feats)
    found, stopped = [], []
    for c in draws:
        svm = _fit(train, train_labels.cpu(), c, bias, seed)
        found.append((svm.score(held_out, held_out_labels.cpu()), -c))
        if svm.n_iter_ >= MAX_ITER:
            stopped.append(c)
    if stopped:
        warnings.warn(
            f'{len(stopped)} of {trials} SVMs, those with C from '
            f'{min(stopped):g} to {max(stopped):g}, had not converged after '
            f'{MAX_ITER} iterations; their accuracies are approximate. A '
            'smaller C converges sooner, and so do scaled features '
            '(percentile_scale).',
            ConvergenceWarning,
            stacklevel=2,
        )
    accuracy, negative = max(found)
    return -negative, accuracy


def _float64(feats: torch.Tensor) -> np.ndarray:
    """Convert once, as liblinear would do in every trial."""
    return feats.double().cpu().numpy()


def _fit(
    feats: np.ndarray, labels: torch.Tensor, c: float, bias: float, seed: int
) -> LinearSVC:
    svm = LinearSVC(
        loss='squared_hinge',
        dual=True,
        C=c,
        intercept_scaling=bias,
        tol=TOLERANCE,
        max_iter=MAX_ITER,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # the callers warn themselves, once and with a remedy
        warnings.simplefilter('ignore', ConvergenceWarning)
        return svm.fit(feats, labels.numpy())
