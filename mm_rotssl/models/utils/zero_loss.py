from collections.abc import Iterable

import torch


def zero_loss(parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """A loss of 0 for parameters that take no part in a step.

    DistributedDataParallel waits for a gradient of each parameter.

    Args:
        parameters (Iterable[Tensor]): Of any shape; those that need no
            gradient are ignored.

    Returns:
        Tensor: 0, float32 (); its gradients are 0 also where a parameter is
        not finite.

    Examples:
        >>> import torch
        >>> weight = torch.full((2,), torch.inf, requires_grad=True)
        >>> loss = zero_loss([weight])
        >>> loss.backward()
        >>> loss.item(), weight.grad
        (0.0, tensor([0., 0.]))
    """
    # sums of empty slices: 0 whatever the values are, with zero gradients
    zeros = [p.flatten()[:0].sum() for p in parameters if p.requires_grad]
    return sum(zeros, torch.zeros(()))
