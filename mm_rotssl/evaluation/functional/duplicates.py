"""Which images are there twice?

Source of the two steps, neighbors by features, then a look at the images:
Barz and Denzler, *Do We Train on Test Data? Purging CIFAR of
Near-Duplicates*, Journal of Imaging 2020 (https://arxiv.org/abs/1902.00423),
who look at them themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F


@torch.no_grad()
def nearest_pairs(
    queries: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor] | None = None,
    k: int = 5,
    limit: int = 1000,
    chunk_size: int = 4096,
) -> torch.Tensor:
    """Find the pairs of images that all stages find most similar.

    The similarity of two images is the sum of the stages' cosine
    similarities. Each query takes part with its ``k`` nearest neighbors.

    Args:
        queries (Sequence[Tensor]): Of each stage the features (N, C).
        reference (Sequence[Tensor], optional): Of each stage the features
            (M, C) of other images. Defaults to None: pairs of queries.
        k (int): Defaults to 5.
        limit (int): Number of pairs. Defaults to 1000.
        chunk_size (int): ``chunk_size`` squared similarities are in memory
            at a time. Defaults to 4096.

    Returns:
        Tensor: Positions of query and reference, int64 (P, 2), P at most
        ``limit``, the most similar first. A pair of queries comes once, the
        smaller position first.

    Examples:
        >>> import torch
        >>> feats = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
        >>> nearest_pairs([feats], k=1).tolist()
        [[0, 2], [1, 2]]
    """
    others = queries if reference is None else reference
    found: dict[tuple[int, int], float] = {}
    for first in range(0, len(queries[0]), chunk_size):
        part = _directions(queries, first, chunk_size)
        best = part.new_empty(len(part), 0)
        places = torch.empty(len(part), 0, dtype=torch.int64)
        for start in range(0, len(others[0]), chunk_size):
            similarity = part @ _directions(others, start, chunk_size).T
            if reference is None and start == first:
                # an image is no pair with itself
                similarity.fill_diagonal_(-torch.inf)
            values, where = similarity.topk(min(k, similarity.size(1)))
            best = torch.cat([best, values], 1)
            places = torch.cat([places, where + start], 1)
            best, where = best.topk(min(k, best.size(1)))
            places = places.gather(1, where)
        for i, (values, where) in enumerate(
            zip(best.tolist(), places.tolist(), strict=True), first
        ):
            for value, j in zip(values, where, strict=True):
                pair = (i, j) if reference is not None else sorted((i, j))
                if value > -torch.inf:
                    found[pair[0], pair[1]] = value
    # ties in the order of the images
    order = sorted(found, key=lambda pair: (-found[pair], pair))[:limit]
    return torch.tensor(order, dtype=torch.int64).reshape(-1, 2)


def _directions(
    stages: Sequence[torch.Tensor], start: int, count: int
) -> torch.Tensor:
    """Vectors whose products are the sum of the stages' cosines."""
    parts = [F.normalize(f[start : start + count].float()) for f in stages]
    return torch.cat(parts, 1)


def pixel_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Compare two images by Pearson's correlation of their values.

    Args:
        first (ndarray): Image of any shape and type.
        second (ndarray): Another one.

    Returns:
        float: 1 for images that are equal but for brightness and contrast;
        0 if their shapes differ or one is of a single color.

    Examples:
        >>> import numpy as np
        >>> image = np.array([[0, 10], [20, 90]], np.uint8)
        >>> round(pixel_correlation(image, 2 * image + 5), 6)
        1.0
    """
    if first.shape != second.shape:
        return 0.0
    a, b = (image.astype(np.float64).ravel() for image in (first, second))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else 0.0
