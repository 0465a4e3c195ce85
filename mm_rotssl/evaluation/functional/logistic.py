"""Logistic regression on more rows than fit into memory."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler

from .threads import MUCH_WORK, limit_threads

# A copy in float64 of more bytes than this is not made: rows are then read
# in chunks, in every step of the solver.
MOST_BYTES = 2**30
CHUNK_ROWS = 16384
# of the solver, with either way
MAX_ITERATIONS = 1000
TOLERANCE = 1e-4
# more labels than this need no cross-validation
MANY_LABELS = 1000


def linear_probe(
    feats: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    c: float = 1.0,
    most_bytes: int = MOST_BYTES,
    device: torch.device | str = 'cpu',
) -> torch.Tensor:
    r"""Classify by logistic regression on standardized features.

    .. math:: \min_{W, b} \; \frac{1}{2} \lVert W \rVert^2 + C \sum_i
        -\log \mathrm{softmax}(W x_i + b)_{y_i}

    with every feature scaled to mean 0 and variance 1 over the rows, by
    L-BFGS: scikit-learn's ``StandardScaler`` and ``LogisticRegression``, or,
    where their copy of the rows would be too large, the same problem with
    the rows read in chunks; on another device than a CPU also where there
    are very many products. (With two classes scikit-learn has one vector in
    place of two opposite ones, so that it penalizes twice as much; so does
    the other way.)

    Args:
        feats (Tensor): Labeled features (M, C), any float type; perhaps
            mapped from the disk.
        labels (Tensor): Their classes, int64 (M,), two or more different.
        queries (Tensor): Features to classify (N, C).
        c (float): :math:`C`, the inverse strength of the penalty. Defaults
            to 1.
        most_bytes (int): Of a copy of the rows in memory. Defaults to 1 GiB.
        device (torch.device | str): Where chunks are worked on, in float64
            on a CPU and float32 elsewhere. Defaults to 'cpu'.

    Returns:
        Tensor: Predicted classes, int64 (N,), on the CPU.

    Examples:
        >>> import torch
        >>> feats = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
        >>> labels = torch.tensor([7, 7, 2, 2])
        >>> asked = torch.tensor([[0.5], [6.0]])
        >>> linear_probe(feats, labels, asked).tolist()
        [7, 2]
    """
    classes, targets = labels.cpu().unique(return_inverse=True)
    device = torch.device(device)
    products = feats.numel() * len(classes)
    if 8 * feats.numel() <= most_bytes and (
        device.type == 'cpu' or products <= MUCH_WORK
    ):
        scaler = StandardScaler()
        probe = LogisticRegression(C=c, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
        with limit_threads(products), warnings.catch_warnings():
            # with a label a class the classes are as many as the labels
            warnings.filterwarnings('ignore', 'The number of unique classes')
            probe.fit(
                scaler.fit_transform(feats.double().cpu().numpy()),
                labels.cpu().numpy(),
            )
        found = [
            probe.predict(scaler.transform(part.double().cpu().numpy()))
            for part in queries.split(CHUNK_ROWS)
        ]
        return torch.from_numpy(np.concatenate(found))
    mean, std = _mean_and_std(feats)
    weight = _fit_in_chunks(feats, targets, len(classes), c, mean, std, device)
    scores = [
        (part.double().cpu() - mean) / std @ weight[:-1] + weight[-1]
        for part in queries.split(CHUNK_ROWS)
    ]
    return classes[torch.cat(scores).argmax(1)]


def choose_penalty(
    feats: torch.Tensor,
    labels: torch.Tensor,
    grid: Sequence[float],
    seed: int = 0,
    most_bytes: int = MOST_BYTES,
    device: torch.device | str = 'cpu',
) -> float:
    """Choose C on a held-out part of the labels.

    Of up to 1,000 labels each fifth is held out in turn (fewer parts where a
    class has fewer labels than five; a label that is alone in its class is
    not held out); of more, one fifth, the same share of
    each class. Of rows whose copy would be too large only so many are looked
    at, drawn at random, that it is not: C weighs the sum over the rows, so
    that it suits any number of them. Of equal Cs the smallest is taken.

    Args:
        feats (Tensor): Labeled features (M, C).
        labels (Tensor): Their classes, int64 (M,).
        grid (Sequence[float]): Cs to try, from the smallest on.
        seed (int): Of the split. Defaults to 0.
        most_bytes (int): See `linear_probe`.
        device (torch.device | str): See `linear_probe`.

    Returns:
        float: One of them; 1.0 where each class has a single label, so that
        nothing can be held out.
    """
    if len(grid) == 1:
        return grid[0]
    numbers = labels.cpu().numpy()
    classes, counts = np.unique(numbers, return_counts=True)
    # what is alone in its class is always learned from
    alone = np.isin(numbers, classes[counts == 1])
    counts = counts[counts > 1]
    if not len(counts):
        return 1.0
    places = np.flatnonzero(~alone)
    if len(places) > MANY_LABELS:
        fitting = most_bytes // (8 * feats.size(1))
        # scikit-learn wants no fewer in either part than there are classes
        held_out = max(min(len(places), fitting) // 5, len(counts))
        splits = StratifiedShuffleSplit(
            1,
            train_size=min(len(places) - held_out, 4 * held_out),
            test_size=held_out,
            random_state=seed,
        )
    else:
        splits = StratifiedKFold(
            min(5, counts.min()), shuffle=True, random_state=seed
        )
    right = np.zeros(len(grid))
    for kept, held in splits.split(places, numbers[places]):
        kept = np.concatenate([places[kept], np.flatnonzero(alone)])
        held = places[held]
        rows, queries = feats[kept], feats[held]
        for i, c in enumerate(grid):
            found = linear_probe(
                rows, labels[kept], queries, c, most_bytes, device
            )
            right[i] += (found == labels[held]).sum().item()
    return grid[int(right.argmax())]


def _mean_and_std(feats: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each column, float64 (C,); 1 in place of a deviation of 0."""
    mean = sum(part.double().sum(0) for part in feats.split(CHUNK_ROWS)) / len(
        feats
    )
    variance = sum(
        (part.double() - mean).square().sum(0)
        for part in feats.split(CHUNK_ROWS)
    ) / len(feats)
    std = torch.as_tensor(variance).sqrt()
    return torch.as_tensor(mean), torch.where(std > 0, std, 1.0)


def _fit_in_chunks(
    feats: torch.Tensor,
    targets: torch.Tensor,
    num_classes: int,
    c: float,
    mean: torch.Tensor,
    std: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """Weights, and in the last row the biases, float64 (C + 1, classes)."""
    shape = feats.size(1) + 1, num_classes
    strength = (2.0 if num_classes == 2 else 1.0) / (c * len(feats))

    dtype = torch.float64 if device.type == 'cpu' else torch.float32
    mean, std = mean.to(device, dtype), std.to(device, dtype)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = torch.from_numpy(flat).view(shape).to(device, dtype)
        gradient = torch.zeros_like(weight)
        loss = torch.zeros((), dtype=dtype, device=device)
        for rows, wanted in zip(
            feats.split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True
        ):
            wanted = wanted.to(device)
            rows = (rows.to(device, dtype) - mean) / std
            logits = rows @ weight[:-1] + weight[-1]
            loss += F.cross_entropy(logits, wanted, reduction='sum')
            error = logits.softmax(1)
            error[torch.arange(len(wanted)), wanted] -= 1
            gradient[:-1] += rows.T @ error
            gradient[-1] += error.sum(0)
        gradient /= len(feats)
        # biases are not penalized
        gradient[:-1] += strength * weight[:-1]
        penalty = 0.5 * strength * weight[:-1].square().sum()
        return (
            (loss / len(feats) + penalty).item(),
            gradient.double().flatten().cpu().numpy(),
        )

    found = minimize(
        objective,
        np.zeros(shape[0] * shape[1]),
        jac=True,
        method='L-BFGS-B',
        options=dict(maxiter=MAX_ITERATIONS, gtol=TOLERANCE, ftol=0),
    )
    return torch.from_numpy(found.x).view(shape)
