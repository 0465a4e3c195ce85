import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce

# rows whose distances to all centroids are in memory at once
CHUNK_ROWS = 8192
# share of a centroid's numbers by which the halves of a split cluster differ
SPLIT = 1 / 1024


@torch.no_grad()
def kmeans(
    feats: torch.Tensor,
    centroids: torch.Tensor,
    iterations: int = 20,
    spherical: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Cluster the rows of all processes by Lloyd's algorithm.

    Each row goes to the nearest centroid, and each centroid to the mean of
    its rows, so many times; then the rows are assigned once more. With
    ``spherical`` nearest means the largest dot product, and centroids are
    scaled to length 1.

    A centroid without rows gets half of the largest cluster: that one's
    centroid, multiplied by 1 ± 1/1024, the sign changing from number to
    number, and the other sign for the other half, as in faiss, which
    DeepCluster's code calls. Where there are fewer different rows than
    centroids some stay empty all the same.

    Each process has some of the rows; the sums are those of all processes,
    so that all get the same centroids.

    Args:
        feats (Tensor): Rows of this process, perhaps none, (N, C); with
            ``spherical`` of length 1.
        centroids (Tensor): To start from, the same on all processes, (K, C).
        iterations (int): Defaults to 20.
        spherical (bool): Defaults to False.

    Returns:
        tuple[Tensor, Tensor]: Of each row its cluster, int64 (N,), and the
        centroids, float32 (K, C).

    Raises:
        ValueError: If the shapes don't fit or a number is not finite.

    Examples:
        >>> import torch
        >>> rows = torch.tensor([[0.0], [1.0], [9.0], [10.0], [11.0]])
        >>> labels, centroids = kmeans(rows, rows[:2])
        >>> labels.tolist(), centroids.flatten().tolist()
        ([0, 0, 1, 1, 1], [0.5, 10.0])
    """
    if feats.dim() != 2 or centroids.shape[1:] != feats.shape[1:]:
        raise ValueError(
            'Rows and centroids of k-means must be (N, C) and (K, C), got '
            f'{tuple(feats.shape)} and {tuple(centroids.shape)}.'
        )
    centroids = centroids.float().clone()
    for _ in range(iterations):
        sums = torch.zeros_like(centroids, dtype=torch.float64)
        counts = sums.new_zeros(len(centroids))
        for rows in feats.split(CHUNK_ROWS):
            nearest = _nearest(rows, centroids, spherical)
            sums.index_add_(0, nearest, rows.double())
            counts += nearest.bincount(minlength=len(centroids))
        all_reduce(sums)
        all_reduce(counts)
        if not sums.isfinite().all():
            raise ValueError(
                'k-means got rows that are NaN or infinite. Training has '
                'diverged; lower the learning rate.'
            )
        filled = counts > 0
        centroids[filled] = (sums[filled] / counts[filled, None]).float()
        _split_largest(centroids, counts)
        if spherical:
            centroids = F.normalize(centroids, dim=1)
    labels = [
        _nearest(rows, centroids, spherical)
        for rows in feats.split(CHUNK_ROWS)
    ]
    return torch.cat(labels), centroids


def _nearest(
    rows: torch.Tensor, centroids: torch.Tensor, spherical: bool
) -> torch.Tensor:
    scores = rows.float() @ centroids.T
    if not spherical:
        scores -= 0.5 * centroids.square().sum(1)
    return scores.argmax(1)


def _split_largest(centroids: torch.Tensor, counts: torch.Tensor) -> None:
    """Give empty clusters half of the largest ones, in place."""
    signs = torch.ones_like(centroids[0])
    signs[1::2] = -1
    for empty in (counts == 0).nonzero().flatten().tolist():
        largest = int(counts.argmax())
        centroids[empty] = centroids[largest] * (1 + SPLIT * signs)
        centroids[largest] *= 1 - SPLIT * signs
        counts[empty] = counts[largest] = counts[largest] / 2
