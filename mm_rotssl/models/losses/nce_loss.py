import math

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import nn

from mm_rotssl.registry import MODELS

# added to the denominators, as in the official code
EPS = 1e-7


def nce_loss(
    positive: torch.Tensor,
    negative: torch.Tensor,
    log_z: torch.Tensor | float,
    num_instances: int,
) -> torch.Tensor:
    r"""Noise-contrastive estimation over the images of a dataset.

    With :math:`P(j) = \exp(s_j) / Z` the probability of image `j` under
    the model, `n` images and `K` noise images, drawn uniformly,

    .. math::
        L = -\frac{1}{B} \sum_b \Big[ \ln \frac{P(b)}{P(b) + K/n}
            + \sum_{k=1}^{K} \ln \frac{K/n}{P(k) + K/n} \Big].

    Computed in float32 with logarithms, so that no score overflows.

    Source: Wu, Xiong, Yu and Lin, *Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination*, CVPR 2018, equations 4 to 8; the
    1e-7 that the official code adds to both denominators is added too.

    Args:
        positive (Tensor): Scores, dot product by temperature, of the
            images themselves, (B,).
        negative (Tensor): Scores of the K noise images, (B, K).
        log_z (Tensor | float): Logarithm of the normalizer Z, a constant.
        num_instances (int): Number of images `n`.

    Returns:
        Tensor: Scalar, float32.

    Examples:
        >>> import torch
        >>> # the value at the start, when all scores are alike
        >>> zeros = torch.zeros(3, 4096)
        >>> loss = nce_loss(zeros[:, 0], zeros, math.log(1000), 1000)
        >>> round(loss.item(), 3)
        9.318
    """
    noise = negative.size(1) / num_instances
    log_noise = math.log(noise + EPS)
    positive = positive.float() - log_z
    negative = negative.float() - log_z
    # P / (P + c) = sigmoid(ln P - ln c), and -ln sigmoid(x) = softplus(-x)
    found = F.softplus(log_noise - positive)
    rejected = F.softplus(negative - log_noise) - math.log(
        noise / (noise + EPS)
    )
    return (found + rejected.sum(1)).mean()


@MODELS.register_module()
class NCELoss(nn.Module):
    r"""Noise-contrastive estimation with its normalizer.

    Z, the sum of :math:`\exp(s)` over the whole dataset, is estimated as n
    times the mean of :math:`\exp(s)` over the scores of a batch, on all
    processes. It is a buffer, so a resumed run goes on with it.

    Args:
        z (str | float): 'first_batch', the official way: estimated once
            and kept, though the scores drift away from it (for which the
            method was criticized). On small datasets they do so faster than
            the loss can follow, and it diverges: an epoch there has few
            steps, in all of which the features become alike, and then the
            bank with them. 'running_mean': the estimate is updated with
            every batch. A number fixes Z / n: 2.2 is what a bank of
            random rows of 128 numbers gives at temperature 0.07; the
            literature's constant for ImageNet is 2.2456. Defaults to
            'first_batch'.
        z_momentum (float): Weight of the old value in the running mean.
            Defaults to 0.99.

    Raises:
        ValueError: If ``z`` is neither of the words nor positive, or
            ``z_momentum`` not in 0..1.
    """

    log_z: torch.Tensor

    def __init__(
        self, z: str | float = 'first_batch', z_momentum: float = 0.99
    ) -> None:
        super().__init__()
        if isinstance(z, str):
            good = z in ('first_batch', 'running_mean')
        else:
            good = z > 0
        if not good:
            raise ValueError(
                f"z={z!r} of NCELoss: 'first_batch', 'running_mean' or a "
                'positive number, which is Z / n.'
            )
        if not 0 < z_momentum < 1:
            raise ValueError(
                f'z_momentum={z_momentum} of NCELoss must lie between 0 and 1.'
            )
        self.z = z
        self.z_momentum = z_momentum
        # nan until it is estimated; the logarithm, because Z itself leaves
        # the range of float32 at low temperatures
        self.register_buffer('log_z', torch.tensor(math.nan))

    def forward(
        self,
        positive: torch.Tensor,
        negative: torch.Tensor,
        num_instances: int,
    ) -> torch.Tensor:
        """Update Z and compute the loss.

        Args:
            positive (Tensor): See :func:`nce_loss`.
            negative (Tensor): See :func:`nce_loss`.
            num_instances (int): See :func:`nce_loss`.

        Returns:
            Tensor: Scalar, float32.
        """
        if isinstance(self.z, str):
            if self.z == 'running_mean' or self.log_z.isnan():
                self._estimate(positive, negative, num_instances)
            log_z: torch.Tensor | float = self.log_z.clone()
        else:
            log_z = math.log(self.z * num_instances)
        return nce_loss(positive, negative, log_z, num_instances)

    @torch.no_grad()
    def _estimate(
        self,
        positive: torch.Tensor,
        negative: torch.Tensor,
        num_instances: int,
    ) -> None:
        scores = torch.cat([positive[:, None], negative], 1).float()
        log_z = (
            scores.logsumexp((0, 1))
            - math.log(scores.numel())
            + math.log(num_instances)
        )
        # average Z, not its logarithm, over the processes; dividing by the
        # largest one keeps exp() in range
        largest = log_z.clone()
        all_reduce(largest, 'max')
        ratio = (log_z - largest).exp()
        all_reduce(ratio, 'mean')
        log_z = largest + ratio.log()
        if not self.log_z.isnan():
            log_z = torch.logaddexp(
                self.log_z + math.log(self.z_momentum),
                log_z + math.log1p(-self.z_momentum),
            )
        self.log_z.copy_(log_z)
