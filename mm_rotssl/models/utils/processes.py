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
