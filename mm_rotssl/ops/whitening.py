import torch
from mmengine.dist import all_reduce

# worked on in float64 at once
CHUNK_ROWS = 8192


@torch.no_grad()
def whiten(feats: torch.Tensor, channels: int) -> torch.Tensor:
    r"""Project rows onto their principal components, each of variance 1.

    With the mean :math:`\mu` and the eigenvectors :math:`u_j` of the
    covariance of the rows of all processes, :math:`\lambda_j` their
    eigenvalues, the largest first, the result is :math:`u_j^\top (x - \mu) /
    \sqrt{\lambda_j}`: scikit-learn's ``PCA(whiten=True)`` but for signs.

    Source: Caron et al., *Deep Clustering for Unsupervised Learning of
    Visual Features*, ECCV 2018 (https://arxiv.org/abs/1807.05520), section
    3.3.

    Args:
        feats (Tensor): Rows of this process, (N, C).
        channels (int): Number of components that are kept, at most C.

    Returns:
        Tensor: float32 (N, channels). A component in which the rows do not
        differ is 0.

    Raises:
        ValueError: If a row has fewer numbers than ``channels``.
    """
    size = feats.size(1)
    if not 0 < channels <= size:
        raise ValueError(
            f'Rows of {size} numbers do not have {channels} principal '
            'components.'
        )
    count = torch.tensor(
        [len(feats)], dtype=torch.float64, device=feats.device
    )
    total = torch.zeros(size, dtype=torch.float64, device=feats.device)
    for rows in feats.split(CHUNK_ROWS):
        total += rows.double().sum(0)
    all_reduce(count)
    all_reduce(total)
    mean = total / count
    covariance = total.new_zeros(size, size)
    for rows in feats.split(CHUNK_ROWS):
        centered = rows.double() - mean
        covariance += centered.T @ centered
    all_reduce(covariance)
    values, vectors = torch.linalg.eigh(covariance / (count - 1))
    values, vectors = values.flip(0)[:channels], vectors.flip(1)[:, :channels]
    # what is left of rounding is no direction
    seen = values > values[0] * 1e-12
    scale = torch.where(seen, values.clamp(min=0).rsqrt(), 0)
    return torch.cat(
        [
            ((rows.double() - mean) @ vectors * scale).float()
            for rows in feats.split(CHUNK_ROWS)
        ]
    )
