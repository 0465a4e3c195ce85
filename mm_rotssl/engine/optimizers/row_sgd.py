from collections.abc import Callable
from typing import Any

import torch

from mm_rotssl.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class RowSGD(torch.optim.SGD):
    """SGD that touches only the rows which have a gradient.

    Parameters with a sparse gradient, such as the classifier of
    :class:`ExemplarHead` with ``num_sampled``, are updated without momentum,
    since that would change all rows in each step. A learning rate
    ``1 / (1 - momentum)`` times as high (``lr_mult`` in ``paramwise_cfg``)
    makes up for it. Their weight decay reaches only the touched rows.
    All other parameters are updated as by :class:`torch.optim.SGD`, which
    takes no sparse gradients with weight decay, and slows down with every
    step with momentum.

    Args:
        *args (Any): Of :class:`torch.optim.SGD`.
        **kwargs (Any): Likewise.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters.

        Args:
            closure (Callable, optional): Computes the loss anew, with its
                gradient. Defaults to None.

        Returns:
            Any: What it returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = []
        for group in self.param_groups:
            for parameter in group['params']:
                grad = parameter.grad
                if grad is None or not grad.is_sparse:
                    continue
                sparse.append((parameter, grad))
                # hidden from the parent
                parameter.grad = None
                grad = grad.coalesce()
                rows, values = grad.indices()[0], grad.values()
                if group['maximize']:
                    values = -values
                values = values.add(
                    parameter[rows], alpha=group['weight_decay']
                )
                parameter.index_add_(0, rows, values, alpha=-group['lr'])
        super().step()
        for parameter, grad in sparse:
            parameter.grad = grad
        return loss
