from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

from mm_rotssl.utils import InputError

# so many rows come first, the more the later; by then what the nearest
# neighbors have to beat is known
FIRST_ROWS = 2048


@torch.no_grad()
def search_neighbors(
    reference: torch.Tensor,
    queries: torch.Tensor,
    k: int,
    chunk_size: int = 8192,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the nearest neighbors by cosine similarity, exactly.

    The rows of both may be mapped from the disk: never more than a few
    chunks of them are in memory, and the reference set is read once. All of
    PyTorch's threads are used.

    Args:
        reference (Tensor): Features (M, C) to search, any float type.
        queries (Tensor): Features (N, C) to search for.
        k (int): Number of neighbors, at most M.
        chunk_size (int): So many rows of the reference set are compared with
            a sixteenth as many queries at a time, by each thread. Defaults
            to 8192.

    Returns:
        tuple[Tensor, Tensor]: Of each query's nearest neighbors, nearest
        first, the similarities, float32 (N, k), and the positions in the
        reference set, int64 (N, k); on the CPU.

    Raises:
        ValueError: If the shapes don't fit, there are fewer than k rows or a
            setting is not positive.
        InputError: If a feature is not finite.
    """
    if k < 1 or chunk_size < 1:
        raise ValueError(
            f'k={k} and chunk_size={chunk_size} of kNN must be positive.'
        )
    if reference.dim() != 2 or reference.shape[1:] != queries.shape[1:]:
        raise ValueError(
            'Reference set and queries of kNN must be (M, C) and (N, C), got '
            f'{tuple(reference.shape)} and {tuple(queries.shape)}.'
        )
    if len(reference) < k:
        raise ValueError(
            f'k={k} of kNN: the reference set has only {len(reference)} '
            'features.'
        )
    similarity = np.empty((len(queries), k), np.float32)
    positions = np.empty((len(queries), k), np.int64)
    size = max(1, chunk_size // 16)
    threads = max(1, min(torch.get_num_threads(), -(-len(queries) // size)))
    # memory that is used again need not be cleared by the system each time
    memory = np.empty((threads, size * max(chunk_size, k)), np.float32)
    flags = np.empty(memory.shape, bool)
    # numpy's products and partitions are quicker than PyTorch's on a CPU, if
    # each thread has its own
    with threadpool_limits(1, 'blas'), ThreadPoolExecutor(threads) as pool:
        start, finite = 0, True
        while start < len(reference):
            count = min(max(FIRST_ROWS, start), chunk_size)
            # k of them fill the places of the nearest
            count = count if start else max(count, k)
            rows = _unit(reference[start : start + count])
            finite = finite and bool(np.isfinite(rows).all())

            def search(
                thread: int, rows: np.ndarray = rows, start: int = start
            ) -> None:
                step = threads * size
                for first in range(thread * size, len(queries), step):
                    part = slice(first, first + size)
                    _compare(
                        rows,
                        _unit(queries[part]),
                        start,
                        similarity[part],
                        positions[part],
                        memory[thread],
                        flags[thread],
                    )

            list(pool.map(search, range(threads)))
            start += len(rows)

        def sort(first: int) -> None:
            part = slice(first, first + size)
            order = np.argsort(-similarity[part], 1)
            for array in (similarity, positions):
                array[part] = np.take_along_axis(array[part], order, 1)

        list(pool.map(sort, range(0, len(queries), size)))
    if not (finite and np.isfinite(similarity).all()):
        raise InputError(
            'Features that kNN compares are NaN or infinite. Take a '
            'checkpoint from before the training diverged.'
        )
    return torch.from_numpy(similarity), torch.from_numpy(positions)


def _unit(feats: torch.Tensor) -> np.ndarray:
    """Rows of length 1, float32."""
    return F.normalize(feats.float(), dim=1).cpu().numpy()


def _compare(
    rows: np.ndarray,
    queries: np.ndarray,
    start: int,
    similarity: np.ndarray,
    positions: np.ndarray,
    memory: np.ndarray,
    flags: np.ndarray,
) -> None:
    """Let rows of the reference set take the place of farther ones.

    Args:
        rows (ndarray): Of length 1, float32 (R, C).
        queries (ndarray): Of length 1, float32 (Q, C).
        start (int): Position of the first row; with 0 nothing was found yet.
        similarity (ndarray): Of the nearest until now, in any order, float32
            (Q, K); written.
        positions (ndarray): Of the same, int64 (Q, K); written.
        memory (ndarray): For Q * R numbers, float32; written.
        flags (ndarray): For as many, bool; written.
    """
    k, (count, width) = similarity.shape[1], (len(queries), len(rows))
    each = np.arange(count)[:, None]
    found = memory[: count * width].reshape(count, width)
    np.matmul(queries, rows.T, out=found)
    if not start:
        positions[:] = np.argpartition(found, width - k, 1)[:, width - k :]
        similarity[:] = found[each, positions]
        return
    # few are nearer than the farthest of the nearest until now
    is_nearer = flags[: count * width].reshape(count, width)
    np.greater(found, similarity.min(1, keepdims=True), out=is_nearer)
    nearer = np.flatnonzero(is_nearer)
    counts = np.diff(np.searchsorted(nearer, np.arange(count + 1) * width))
    most = int(counts.max())
    # in front the old ones, behind them the new ones and, where a query has
    # fewer, nothing
    filled = np.arange(most) < counts[:, None]
    values = np.full((count, k + most), -np.inf, np.float32)
    values[:, :k] = similarity
    values[:, k:][filled] = found.ravel()[nearer]
    places = np.empty((count, k + most), np.int64)
    places[:, :k] = positions
    places[:, k:][filled] = nearer
    places[:, k:] -= each * width - start
    best = np.argpartition(values, most, 1)[:, most:] + each * (k + most)
    similarity[:] = values.ravel()[best]
    positions[:] = places.ravel()[best]


def vote(
    similarity: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    temperature: float = 0.07,
) -> torch.Tensor:
    r"""Let neighbors vote for their class, the nearer the more.

    The score of class :math:`c` for a query :math:`q` is

    .. math:: \sum_{i \in N_k(q),\, y_i = c} \exp(q \cdot x_i / \tau)

    over its :math:`k` nearest neighbors :math:`N_k` by cosine similarity.

    Source: Wu et al., *Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination*, CVPR 2018 (https://arxiv.org/abs/1805.01978),
    section 3.4. The similarities are shifted by each query's largest before
    the exponential, which changes no ranking and can't overflow.

    Args:
        similarity (Tensor): Of each query's neighbors, nearest first,
            float32 (N, k).
        labels (Tensor): Their classes, int64 (N, k), from 0.
        num_classes (int): Number of classes.
        temperature (float): :math:`\tau`. Defaults to 0.07.

    Returns:
        Tensor: Scores (N, num_classes), float32, scaled so that the nearest
        neighbor counts 1; the prediction is their argmax.

    Raises:
        ValueError: If the temperature is not positive.

    Examples:
        >>> import torch
        >>> similarity, labels = torch.ones(1, 3), torch.tensor([[2, 0, 2]])
        >>> vote(similarity, labels, num_classes=3).tolist()
        [[1.0, 0.0, 2.0]]
    """
    if temperature <= 0:
        raise ValueError(f'temperature={temperature} of kNN must be positive.')
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(weights), num_classes)
    return votes.scatter_add_(1, labels, weights)


def knn_classify(
    reference: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 8192,
) -> torch.Tensor:
    """Classify by weighted nearest neighbors, see `vote`.

    Args:
        reference (Tensor): Labeled features (M, C), any float type;
            normalized here.
        labels (Tensor): Their classes, int64 (M,), from 0.
        queries (Tensor): Features to classify (N, C).
        k (int): Number of neighbors; at most M are used. Defaults to 20.
        temperature (float): Of the votes. Defaults to 0.07.
        chunk_size (int): See `search_neighbors`. Defaults to 8192.

    Returns:
        Tensor: Scores (N, number of classes), float32, on the CPU, scaled so
        that the nearest neighbor counts 1; the prediction is their argmax.

    Raises:
        ValueError: If the shapes don't fit, the reference set is empty or a
            setting is not positive.
        InputError: If a feature is not finite.

    Examples:
        >>> import torch
        >>> reference = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> query = torch.tensor([[0.9, 0.1]])
        >>> knn_classify(reference, torch.tensor([3, 1]), query, k=1).argmax(1)
        tensor([3])
    """
    if len(reference) == 0 or len(reference) != len(labels):
        raise ValueError(
            f'The reference set of kNN has {len(reference)} features and '
            f'{len(labels)} labels; it needs one label a feature and at least '
            'one of both.'
        )
    similarity, positions = search_neighbors(
        reference, queries, min(k, len(reference)), chunk_size
    )
    labels = labels.cpu()
    return vote(
        similarity, labels[positions], int(labels.max()) + 1, temperature
    )
