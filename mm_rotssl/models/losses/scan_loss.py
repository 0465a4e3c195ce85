import torch

from mm_rotssl.ops import at_least_float32

from ..utils import mean_over_processes

# the official code bounds the logarithm of an agreement so
LEAST = -100.0
EPS = 1e-8


def scan_loss(
    anchors: torch.Tensor,
    neighbors: torch.Tensor,
    entropy_weight: float = 5.0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    r"""Neighbors in the same class, and classes of equal size.

    With the softmax :math:`p_b` of an image and :math:`q_b` of a neighbor,

    .. math::
        L = -\frac{1}{B} \sum_b \ln \langle p_b, q_b \rangle
            + \lambda \sum_c m_c \ln m_c, \quad
        m = \frac{1}{B} \sum_b p_b

    For C classes it is :math:`-(\lambda - 1) \ln C` for predictions that are
    all uniform, :math:`-\lambda \ln C` at best, and 0 if all images are in
    one class.

    The mean m is that of all processes: of few images the entropy of the
    mean is too small however well they are spread. The gradient is that of
    one process with the whole batch, once DistributedDataParallel has taken
    its mean.

    Source: Van Gansbeke et al., *SCAN: Learning to Classify Images without
    Labels*, ECCV 2020 (https://arxiv.org/abs/2005.12320), equation 2, and
    the authors' code, where :math:`\lambda` is 5, the mean is of the images
    alone, not of their neighbors, and logarithms are at least -100.

    Args:
        anchors (Tensor): Logits of the images, (B, C), any float type.
        neighbors (Tensor): Logits of a neighbor of each, (B, C).
        entropy_weight (float): :math:`\lambda`. Defaults to 5.

    Returns:
        tuple[Tensor, dict[str, Tensor]]: The loss, a float32 scalar, and to
        be logged ``consistency``, its first term, and ``entropy``, of m.

    Examples:
        >>> import torch
        >>> logits = 50 * torch.eye(4)
        >>> loss, _ = scan_loss(logits, logits)
        >>> round(loss.item() / torch.tensor(4.0).log().item(), 3)
        -5.0
    """
    log_p = at_least_float32(anchors).log_softmax(1)
    log_q = at_least_float32(neighbors).log_softmax(1)
    agreement = (log_p + log_q).logsumexp(1).clamp(min=LEAST)
    consistency = -agreement.mean()
    mean = mean_over_processes(log_p.exp().mean(0))
    entropy = -(mean * mean.clamp(min=EPS).log()).sum()
    loss = consistency - entropy_weight * entropy
    return loss, dict(
        consistency=consistency.detach(), entropy=entropy.detach()
    )
