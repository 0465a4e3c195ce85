import torch
import torch.nn.functional as F


@torch.no_grad()
def knn_classify(
    reference: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = 4096,
) -> torch.Tensor:
    r"""Classify by weighted nearest neighbors.

    The score of class :math:`c` for a query :math:`q` is

    .. math:: \sum_{i \in N_k(q),\, y_i = c} \exp(q \cdot x_i / \tau)

    over its :math:`k` nearest neighbors :math:`N_k` by cosine similarity.

    Source: Wu et al., *Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination*, CVPR 2018 (https://arxiv.org/abs/1805.01978),
    section 3.4. The similarities are shifted by each query's largest before
    the exponential, which changes no ranking and can't overflow.

    Args:
        reference (Tensor): Labeled features (M, C), any float type;
            normalized here.
        labels (Tensor): Their classes, int64 (M,), from 0.
        queries (Tensor): Features to classify (N, C).
        k (int): Number of neighbors; at most M are used. Defaults to 20.
        temperature (float): :math:`\tau`. Defaults to 0.07.
        chunk_size (int): At most ``chunk_size`` squared similarities are in
            memory at a time. Defaults to 4096.

    Returns:
        Tensor: Scores (N, number of classes), float32, scaled so that the
        nearest neighbor counts 1; the prediction is their argmax.

    Raises:
        ValueError: If the shapes don't fit, the reference set is empty or a
            setting is not positive.

    Examples:
        >>> import torch
        >>> reference = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> query = torch.tensor([[0.9, 0.1]])
        >>> knn_classify(reference, torch.tensor([3, 1]), query, k=1).argmax(1)
        tensor([3])
    """
    if k < 1 or temperature <= 0 or chunk_size < 1:
        raise ValueError(
            f'k={k}, temperature={temperature} and chunk_size={chunk_size} '
            'of kNN must be positive.'
        )
    if len(reference) == 0 or len(reference) != len(labels):
        raise ValueError(
            f'The reference set of kNN has {len(reference)} features and '
            f'{len(labels)} labels; it needs one label a feature and at least '
            'one of both.'
        )
    if reference.dim() != 2 or reference.shape[1:] != queries.shape[1:]:
        raise ValueError(
            'Reference set and queries of kNN must be (M, C) and (N, C), got '
            f'{tuple(reference.shape)} and {tuple(queries.shape)}.'
        )
    k = min(k, len(reference))
    reference = F.normalize(reference.float(), dim=1)
    scores = []
    for part in queries.split(chunk_size):
        part = F.normalize(part.float(), dim=1)
        best = part.new_empty(len(part), 0)
        best_labels = labels.new_empty(len(part), 0)
        for start in range(0, len(reference), chunk_size):
            chunk = reference[start : start + chunk_size]
            similarity, where = (part @ chunk.T).topk(min(k, len(chunk)))
            best = torch.cat([best, similarity], 1)
            best_labels = torch.cat([best_labels, labels[start + where]], 1)
            best, where = best.topk(min(k, best.size(1)))
            best_labels = best_labels.gather(1, where)
        weights = ((best - best[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(part), int(labels.max()) + 1)
        scores.append(votes.scatter_add_(1, best_labels, weights))
    return torch.cat(scores)
