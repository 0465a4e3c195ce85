import torch
from mmengine.dist import all_gather


@torch.no_grad()
def sinkhorn(
    scores: torch.Tensor, epsilon: float = 0.05, iterations: int = 3
) -> torch.Tensor:
    r"""Assign rows to prototypes, all of which get an equal share.

    Starting from :math:`Q = \exp(s / \epsilon)`, N rows by K prototypes, the
    rows of all processes, each iteration divides Q by its sums over the rows
    and then by its sums over the prototypes. So each row of the result sums to
    1, and each prototype has about as much of the rows as any other.

    Each process has some of the rows. The sums over the rows are those of
    all processes in every iteration; K numbers are sent for it. Computed
    with the logarithm of Q, so that no score over- or underflows.

    Source: Caron et al., *Unsupervised Learning of Visual Features by
    Contrasting Cluster Assignments*, NeurIPS 2020
    (https://arxiv.org/abs/2006.09882), section 3.1.

    Args:
        scores (Tensor): Scores (..., N, K) of this process's rows, N at
            least 1, perhaps different on each process; any float type.
        epsilon (float): Divides the scores; the smaller, the closer the
            assignments are to one-hot. Defaults to 0.05.
        iterations (int): Number of iterations. Defaults to 3.

    Returns:
        Tensor: Assignments (..., N, K) of this process's rows, float32
        (float64 of float64 scores), without gradient.

    Raises:
        ValueError: If a setting is out of range.

    Examples:
        >>> import torch
        >>> # both rows prefer the first prototype, the second row less
        >>> scores = torch.tensor([[1.0, 0.0], [0.9, 0.0]])
        >>> sinkhorn(scores, iterations=100).round(decimals=2)
        tensor([[0.7300, 0.2700],
                [0.2700, 0.7300]])
    """
    if epsilon <= 0 or iterations < 1:
        raise ValueError(
            f'epsilon={epsilon} must be positive, and the number of Sinkhorn '
            f'iterations, {iterations}, at least 1.'
        )
    dtype = torch.promote_types(scores.dtype, torch.float32)
    log_q = scores.to(dtype) / epsilon
    for _ in range(iterations):
        parts = all_gather(log_q.logsumexp(-2, keepdim=True))
        log_q = log_q - torch.stack(parts).logsumexp(0)
        log_q = log_q.log_softmax(-1)
    return log_q.exp()
