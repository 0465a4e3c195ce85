import math
from typing import Any

import torch
from mmengine.dist import all_gather, all_reduce, get_rank
from torch.autograd.function import once_differentiable


def check_batch_sizes(size: int, name: str, device: torch.device) -> list[int]:
    """Compare the sizes of the batches of all processes.

    On all processes alike: those that went on would wait for the others for
    ever.

    Args:
        size (int): Images of this process.
        name (str): What needs them alike, for the message.
        device (torch.device): Of what is sent.

    Returns:
        list[int]: Of all processes, all the same.

    Raises:
        ValueError: If they differ.
    """
    sizes = torch.cat(all_gather(torch.tensor([size], device=device))).tolist()
    if len(set(sizes)) > 1:
        raise ValueError(
            f'The processes have batches of {sizes} images, and {name} needs '
            'them alike. Set train_dataloader.drop_last=True.'
        )
    return sizes


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        first = get_rank() * len(rows)
        ctx.own = slice(first, first + len(rows))
        return torch.cat(all_gather(rows.contiguous()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> torch.Tensor:
        # a copy, since it is summed in place and belongs to autograd
        total = grad_output.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total[ctx.own]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, in whose losses those of this one take part.

    The gradient is that of the sum of the losses of all processes. Where
    each computes the loss of the whole batch, the mean that
    DistributedDataParallel takes is then the gradient of one process.

    Args:
        rows (Tensor): (N, ...), the same shape on all processes.

    Returns:
        Tensor: (processes * N, ...).
    """
    return _GatherRows.apply(rows)


class _MeanOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: torch.Tensor) -> torch.Tensor:
        mean = values.clone(memory_format=torch.contiguous_format)
        all_reduce(mean, 'mean')
        return mean

    @staticmethod
    @once_differentiable
    def backward(_: Any, grad_output: torch.Tensor) -> torch.Tensor:
        # a copy, since it is averaged in place and belongs to autograd
        mean = grad_output.clone(memory_format=torch.contiguous_format)
        all_reduce(mean, 'mean')
        return mean


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean over all processes, in whose losses those of this one count.

    The gradient is that of the sum of the losses of all processes. Where
    each computes the same loss of the mean, the mean that
    DistributedDataParallel takes is then the gradient of one process.

    Args:
        values (Tensor): Of any shape, the same on all processes.

    Returns:
        Tensor: Of this shape.
    """
    return _MeanOverProcesses.apply(values)


@torch.no_grad()
def cluster_usage(probabilities: torch.Tensor) -> dict[str, torch.Tensor]:
    """What tells whether all images are put into a few classes.

    Args:
        probabilities (Tensor): Of the classes of this process's images,
            (B, C), float.

    Returns:
        dict[str, Tensor]: Of the batch of all processes ``classes_in_use``,
        how many are predicted for an image, and ``marginal_entropy``, the
        entropy of the mean prediction divided by ln C, 1 if all classes are
        equally large.
    """
    counts = probabilities.argmax(1).bincount(minlength=probabilities.size(1))
    total = probabilities.sum(0)
    all_reduce(counts)
    all_reduce(total)
    entropy = torch.special.entr(total / counts.sum()).sum()
    return dict(
        classes_in_use=(counts > 0).sum().float(),
        marginal_entropy=entropy / math.log(max(2, len(counts))),
    )
