from collections.abc import Callable
from typing import Any

import torch

from mm_rotssl.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class RowSGD(torch.optim.SGD):
    """SGD that updates only the rows that have a gradient.

    Parameters with a sparse gradient, such as the classifier of
    :class:`ExemplarHead` with ``num_sampled``, are updated without momentum,
    since that would change all rows in each step. A learning rate
    ``1 / (1 - momentum)`` times as high (``lr_mult`` in ``paramwise_cfg``)
    makes up for it. Their weight decay is applied to those rows only.
    All other parameters are updated as by :class:`torch.optim.SGD`, which
    rejects sparse gradients with weight decay, and with momentum gets slower
    with every step.

    Args:
        *args (Any): Arguments of :class:`torch.optim.SGD`.
        **kwargs (Any): Keyword arguments of :class:`torch.optim.SGD`.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters.

        Args:
            closure (Callable, optional): Computes the loss anew, with its
                gradient. Defaults to None.

        Returns:
            Any: The closure's loss, or None.
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
                # the parent's step skips parameters without a gradient
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
