import torch
from mmengine.dist import all_gather, all_reduce

# rows of which exponentials are in memory at once
CHUNK_ROWS = 65536
# the official code of SeLa looks at the error as seldom
CHECKED_EVERY = 10


@torch.no_grad()
def sinkhorn(
    scores: torch.Tensor,
    epsilon: float = 0.05,
    iterations: int = 3,
    tolerance: float | None = None,
) -> torch.Tensor:
    r"""Assign rows to prototypes, all of which get an equal share.

    Starting from :math:`Q = \exp(s / \epsilon)`, N rows by K prototypes, the
    rows of all processes, each iteration divides Q by its sums over the rows
    and then by its sums over the prototypes. So each row of the result sums to
    1, and each prototype has about as much of the rows as any other.

    With a ``tolerance`` it ends as soon as each row has its share: the error
    is :math:`\sum_n |\frac{N}{K} \sum_k Q_{nk} - 1|` after a division by the
    sums over the rows, a sum over all N rows. It is looked at in every tenth
    iteration. Three iterations, enough for the soft assignments of SwAV, are
    far from it.

    Each process has some of the rows. The sums over the rows are those of
    all processes in every iteration; K numbers are sent for it. Computed
    with the logarithm of Q, so that no score over- or underflows.

    Source: Caron et al., *Unsupervised Learning of Visual Features by
    Contrasting Cluster Assignments*, NeurIPS 2020
    (https://arxiv.org/abs/2006.09882), section 3.1; the tolerance is that of
    Asano, Rupprecht and Vedaldi, *Self-labelling via Simultaneous Clustering
    and Representation Learning*, ICLR 2020
    (https://arxiv.org/abs/1911.05371), and the authors' code: 0.1 on
    ImageNet, 0.01 on CIFAR-10.

    Args:
        scores (Tensor): Scores (..., N, K) of this process's rows, N at
            least 1, perhaps different on each process; any float type.
        epsilon (float): Divides the scores; the smaller, the closer the
            assignments are to one-hot. Defaults to 0.05.
        iterations (int): Number of iterations, the largest one if there is
            a ``tolerance``. Defaults to 3.
        tolerance (float, optional): See above. Defaults to None, all
            iterations.

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
    if epsilon <= 0 or iterations < 1 or (tolerance or 1) <= 0:
        raise ValueError(
            f'epsilon={epsilon} and tolerance={tolerance} must be positive, '
            f'and the number of Sinkhorn iterations, {iterations}, at least 1.'
        )
    dtype = torch.promote_types(scores.dtype, torch.float32)
    log_q = scores.to(dtype) / epsilon
    size = torch.tensor(float(log_q.size(-2)), device=log_q.device)
    if tolerance is not None:
        all_reduce(size)
    for number in range(1, iterations + 1):
        own = torch.stack(
            [
                rows.logsumexp(-2, keepdim=True)
                for rows in log_q.split(CHUNK_ROWS, -2)
            ]
        ).logsumexp(0)
        log_q -= torch.stack(all_gather(own)).logsumexp(0)
        shares = torch.cat(
            [
                rows.logsumexp(-1, keepdim=True)
                for rows in log_q.split(CHUNK_ROWS, -2)
            ],
            -2,
        )
        log_q -= shares
        if tolerance is not None and number % CHECKED_EVERY == 0:
            error = (shares.exp() * size / log_q.size(-1) - 1).abs()
            error = error.sum((-2, -1))
            all_reduce(error)
            if error.max() <= tolerance:
                break
    return log_q.exp_()
