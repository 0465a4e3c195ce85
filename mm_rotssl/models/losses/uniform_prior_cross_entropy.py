from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable

from mm_rotssl.registry import MODELS

# Rows are processed in parts of about so many logits, over all views: enough
# work for each call, and little memory beside that of the logits.
_PART_CPU = 2**20
_PART_GPU = 2**24


class _Settings(NamedTuple):
    num_global: int
    row_temperature: float
    column_temperature: float
    eps: float
    num_processes: int


class _Sums(NamedTuple):
    """Sums that all parts need; float32, or float64 for float64 logits."""

    # of all rows, (V, 1, C): the largest logit, and the sum of
    # exp((logits - largest) / column temperature)
    column_top: torch.Tensor
    column: torch.Tensor
    # sum over all rows of the softmax over the classes, (V, 1, C)
    prediction: torch.Tensor
    # of the classes, (V, B, 1): the largest logit, and the sum of
    # exp((logits - largest) / row temperature)
    row_top: torch.Tensor
    row: torch.Tensor


class _Terms(NamedTuple):
    """Terms of the loss of R rows, (V, R, C) each; ``mass`` is (V, R, 1)."""

    target: torch.Tensor
    # sum of a target over the classes, before it is normalized to 1
    mass: torch.Tensor
    # softmax over the classes, and N / C over the class's sum of it, (V, 1, C)
    prediction: torch.Tensor
    ratio: torch.Tensor
    # q + eps, where q is prediction times ratio, and its logarithm
    padded: torch.Tensor
    log: torch.Tensor


def _parts(logits: torch.Tensor) -> Iterator[slice]:
    views, rows, classes = logits.shape
    limit = _PART_CPU if logits.device.type == 'cpu' else _PART_GPU
    step = max(1, limit // (views * classes))
    for start in range(0, rows, step):
        yield slice(start, start + step)


# The largest logit is taken off before a temperature divides: those near it,
# which alone count, have no rounding error then. A logit of 20 over 0.05 has
# one of 1e-5, which the exponential turns into a relative one. And what sums
# up to 1 has to do so to the last digit: the gradient is the small rest of
# terms that cancel, so a softmax is divided by its own sum.
def _sum_up(logits: torch.Tensor, settings: _Settings) -> _Sums:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    column_top = logits.amax(1, keepdim=True).to(dtype)
    if settings.num_processes > 1:
        dist.all_reduce(column_top, dist.ReduceOp.MAX)
    # sums of the targets and of the predictions
    column, prediction = sums = column_top.new_zeros(2, *column_top.shape)
    row_top = logits.amax(2, keepdim=True).to(dtype)
    row = torch.empty_like(row_top)
    for part in _parts(logits):
        scores = logits[:, part].to(dtype)
        terms = (scores - column_top).div_(settings.column_temperature)
        column += terms.exp_().sum(1, keepdim=True)
        torch.sub(scores, row_top[:, part], out=terms)
        terms.div_(settings.row_temperature).exp_()
        row[:, part] = terms.sum(2, keepdim=True)
        prediction += terms.div_(row[:, part]).sum(1, keepdim=True)
    if settings.num_processes > 1:
        dist.all_reduce(sums)
    return _Sums(column_top, column, prediction, row_top, row)


def _terms(
    logits: torch.Tensor,
    part: slice,
    sums: _Sums,
    share: float,
    settings: _Settings,
) -> _Terms:
    scores = logits[:, part].to(sums.row.dtype)
    target = scores - sums.column_top
    target.div_(settings.column_temperature).exp_().div_(sums.column)
    mass = target.sum(2, keepdim=True)
    target.div_(mass.clamp(min=settings.eps))
    prediction = scores - sums.row_top[:, part]
    prediction.div_(settings.row_temperature).exp_().div_(sums.row[:, part])
    ratio = share / sums.prediction.clamp(min=settings.eps)
    padded = torch.addcmul(ratio.new_tensor(settings.eps), prediction, ratio)
    return _Terms(target, mass, prediction, ratio, padded, padded.log())


def _partners(x: torch.Tensor, num_global: int) -> torch.Tensor:
    """For each view the sum of x over the views it is paired with."""
    result = torch.empty_like(x)
    of_global = x[:num_global].sum(0)
    total = of_global
    if len(x) > num_global:
        total = of_global + x[num_global:].sum(0)
        result[num_global:] = of_global
    torch.sub(total, x[:num_global], out=result[:num_global])
    return result


def _exponent_gradients(
    terms: _Terms, inner: torch.Tensor, settings: _Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the sum of ``inner`` by the exponents, sums held constant.

    Args:
        terms (_Terms): Of R rows.
        inner (Tensor): Targets times the sum of the logarithms of the paired
            views, (V, R, C); overwritten.
        settings (_Settings): Of the loss.

    Returns:
        tuple[Tensor, Tensor]: By the exponents of the targets and of the
        predictions, (V, R, C) each.
    """
    total = inner.sum(2, keepdim=True)
    # a sum below eps was replaced by the constant eps
    total.masked_fill_(terms.mass < settings.eps, 0)
    by_target = inner.addcmul_(terms.target, total, value=-1)
    by_prediction = _partners(terms.target, settings.num_global)
    by_prediction.mul_(terms.prediction).mul_(terms.ratio).div_(terms.padded)
    return by_target, by_prediction


class _UniformPriorCrossEntropy(torch.autograd.Function):
    """Saves the logits and sums only, and recomputes the rest backward."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, settings: _Settings
    ) -> torch.Tensor:
        views, rows, classes = logits.shape
        share = rows * settings.num_processes / classes
        sums = _sum_up(logits, settings)
        loss = sums.row.new_zeros(())
        # gradients by the sums over all rows
        by_column = torch.zeros_like(sums.column)
        by_prediction = torch.zeros_like(sums.column)
        for part in _parts(logits):
            terms = _terms(logits, part, sums, share, settings)
            inner = terms.target * _partners(terms.log, settings.num_global)
            loss += inner.sum()
            if ctx.needs_input_grad[0]:
                found = _exponent_gradients(terms, inner, settings)
                by_column -= found[0].sum(1, keepdim=True)
                by_prediction -= found[1].sum(1, keepdim=True)
        # a sum below eps was replaced by the constant eps
        by_prediction.masked_fill_(sums.prediction < settings.eps, 0)
        if settings.num_processes > 1 and ctx.needs_input_grad[0]:
            # the losses of the other processes depend on the sums too
            dist.all_reduce(by_column)
            dist.all_reduce(by_prediction)
        num_local = views - settings.num_global
        pairs = views * (views - 1) - num_local * (num_local - 1)
        ctx.save_for_backward(logits, *sums, by_column, by_prediction)
        ctx.constants = share, -1 / (rows * pairs), settings
        return loss * ctx.constants[1]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        logits, *saved, by_column_sum, by_prediction_sum = ctx.saved_tensors
        sums = _Sums(*saved)
        share, factor, settings = ctx.constants
        scale = grad_output * factor
        by_prediction_sum = by_prediction_sum / sums.prediction.clamp(
            min=settings.eps
        )
        result = torch.empty_like(logits)
        for part in _parts(logits):
            terms = _terms(logits, part, sums, share, settings)
            inner = terms.target * _partners(terms.log, settings.num_global)
            by_target, by_prediction = _exponent_gradients(
                terms, inner, settings
            )
            # backward of the softmax over the batch
            mass = terms.mass.clamp(min=settings.eps)
            by_target.addcmul_(terms.target.mul_(mass), by_column_sum)
            by_target.mul_(scale / settings.column_temperature)
            # backward of the softmax over the classes
            by_prediction.addcmul_(terms.prediction, by_prediction_sum)
            by_prediction.addcmul_(
                terms.prediction, by_prediction.sum(2, keepdim=True), value=-1
            )
            by_target.add_(
                by_prediction.mul_(scale / settings.row_temperature)
            )
            result[:, part] = by_target
        return result, None


def uniform_prior_cross_entropy(
    logits: torch.Tensor,
    num_global: int = 2,
    row_temperature: float = 0.1,
    column_temperature: float = 0.05,
    eps: float = 1e-12,
) -> torch.Tensor:
    r"""Cross entropy of views with one another under a uniform prior.

    With the scores :math:`s_v` of view :math:`v`, N images by C classes,
    the batch of all processes,

    .. math::
        t_v(y|x) &= \frac{\sigma_x(s_v / \tau_c)}
            {\sum_{y'} \sigma_x(s_v / \tau_c)_{y'}} \\
        q_v(y|x) &= \frac{N}{C} \frac{\sigma_y(s_v / \tau_r)}
            {\sum_{x'} \sigma_y(s_v / \tau_r)_{x'}} \\
        L &= -\frac{1}{|P| N} \sum_{(i, j) \in P} \sum_{x, y}
            t_i(y|x) \ln (q_j(y|x) + \epsilon)

    where :math:`\sigma_x` is the softmax over the images, :math:`\sigma_y`
    that over the classes, and P all ordered pairs of different views but
    those of two local ones. The gradient flows through targets and
    predictions. If all images are in one class, or all classes are equally
    probable for each image, the loss is ln C (as long as the sums are above
    eps); if all are confidently in equally large classes, about 0.

    Pairs are not visited one by one: each view is compared with the sum of the
    views it is paired with, so time and memory grow with the number of views,
    not with its square. The backward pass keeps nothing but the logits and
    recomputes the rest. Between processes only sums of columns are sent, not
    the logits, and the gradient is that of the sum of their losses, whose mean
    DistributedDataParallel takes.

    Source: Amrani, Karlinsky and Bronstein, *Self-Supervised Classification
    Network*, ECCV 2022 (https://arxiv.org/abs/2103.10994), equations 4 and
    5, and the authors' code, whose mean over pairs and eps these are.

    Args:
        logits (Tensor): Scores (V, B, C) of the views, global ones first, of
            this process's B images, any float type. With several processes
            B must be the same in all.
        num_global (int): Number of global views. Defaults to 2.
        row_temperature (float): Temperature of the predictions. Defaults to
            0.1.
        column_temperature (float): Temperature of the targets. Defaults to
            0.05.
        eps (float): Added inside the logarithm, and the least value of a sum
            that divides. Defaults to 1e-12.

    Returns:
        Tensor: Scalar, float32 (float64 of float64 logits): the mean over
        pairs and this process's images.

    Raises:
        ValueError: If the logits are not (V, B, C) with two views at least,
            or a setting is out of range.

    Examples:
        >>> import torch
        >>> # every image in a class of its own, and all in one
        >>> apart = 10 * torch.eye(3).expand(2, 3, 3)
        >>> round(uniform_prior_cross_entropy(apart).exp().item(), 3)
        1.0
        >>> together = torch.tensor([1.0, 0, 0]).expand(2, 3, 3)
        >>> round(uniform_prior_cross_entropy(together).exp().item(), 3)
        3.0
    """
    if logits.dim() != 3 or len(logits) < 2 or not logits.numel():
        raise ValueError(
            'uniform_prior_cross_entropy needs the scores of two or more '
            f'views, (V, B, C), got {tuple(logits.shape)}.'
        )
    if not 1 <= num_global <= len(logits):
        raise ValueError(
            f'num_global={num_global} must be in 1..{len(logits)}, the '
            'number of views.'
        )
    if min(row_temperature, column_temperature, eps) <= 0:
        raise ValueError(
            f'row_temperature={row_temperature}, column_temperature='
            f'{column_temperature} and eps={eps} must be positive.'
        )
    processes = 1
    if dist.is_available() and dist.is_initialized():
        processes = dist.get_world_size()
    settings = _Settings(
        num_global, row_temperature, column_temperature, eps, processes
    )
    loss: torch.Tensor = _UniformPriorCrossEntropy.apply(logits, settings)
    return loss


@MODELS.register_module()
class UniformPriorCrossEntropy(nn.Module):
    """:func:`uniform_prior_cross_entropy` with its settings.

    Args:
        num_global (int): Number of global views. Defaults to 2.
        row_temperature (float): Temperature of the predictions. Defaults to
            0.1.
        column_temperature (float): Temperature of the targets. Defaults to
            0.05.
        eps (float): Added inside the logarithm, and the least value of a sum
            that divides. Defaults to 1e-12.
    """

    def __init__(
        self,
        num_global: int = 2,
        row_temperature: float = 0.1,
        column_temperature: float = 0.05,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.num_global = num_global
        self.row_temperature = row_temperature
        self.column_temperature = column_temperature
        self.eps = eps

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits (Tensor): Scores (V, B, C) of the views, global ones
                first.

        Returns:
            Tensor: Scalar, float32.
        """
        return uniform_prior_cross_entropy(
            logits,
            self.num_global,
            self.row_temperature,
            self.column_temperature,
            self.eps,
        )
