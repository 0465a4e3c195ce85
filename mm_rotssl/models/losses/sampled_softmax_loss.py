import math

import torch
import torch.nn.functional as F


def sampled_softmax_loss(
    positive: torch.Tensor,
    sampled: torch.Tensor,
    drawn: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
) -> torch.Tensor:
    r"""Cross entropy whose normalizer is estimated from some classes.

    The drawn classes other than the right one, :math:`D_i = D \setminus
    \{y_i\}`, stand for all :math:`N - 1` other classes:

    .. math::
        L = \frac{1}{B} \sum_i \ln \Big( e^{s_{i y_i}} + \frac{N - 1}{|D_i|}
            \sum_{j \in D_i} e^{s_{ij}} \Big) - s_{i y_i}

    If two or more classes are drawn uniformly without replacement, the sum
    is unbiased; if all are drawn, the loss is the cross entropy. The
    logarithm, and so the loss, is too low on average, the less so the more
    classes are drawn.

    Source: Jean, Cho, Memisevic and Bengio, *On Using Very Large Target
    Vocabulary for Neural Machine Translation*, ACL 2015, section 3.2, with a
    uniform proposal. The authors of Exemplar-CNN have up to 32,000 classes
    and use all.

    Args:
        positive (Tensor): Scores of the right classes, (B,), any float type.
        sampled (Tensor): Scores of the drawn classes, (B, D).
        drawn (Tensor): The drawn classes, all different, int64 (D,).
        labels (Tensor): The right classes, int64 (B,).
        num_classes (int): Number of classes N.

    Returns:
        Tensor: Scalar, float32.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[2.0, 0.0, 1.0]])
        >>> label = torch.tensor([2])
        >>> everything = torch.arange(3)
        >>> loss = sampled_softmax_loss(
        ...     scores[:, 2], scores, everything, label, 3
        ... )
        >>> torch.isclose(loss, F.cross_entropy(scores, label)).item()
        True
    """
    hit = drawn == labels[:, None]
    others = len(drawn) - hit.sum(1)
    weight = math.log(max(num_classes - 1, 1)) - others.log()
    scores = (sampled.float() + weight[:, None]).masked_fill(hit, -math.inf)
    scores = torch.cat([positive.float()[:, None], scores], 1)
    return F.cross_entropy(scores, torch.zeros_like(labels))
