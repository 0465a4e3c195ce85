from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.sgd import sgd

from mm_rotssl.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LARC(torch.optim.SGD):
    r"""SGD with a learning rate that adapts to each parameter.

    Layer-wise adaptive rate control, as NVIDIA apex's ``LARC`` around SGD,
    which the released code of Self-Classifier (Amrani et al., ECCV 2022)
    uses. The gradient `g` of a parameter `p` is scaled by a local rate:

    .. math::
        \lambda &= \frac{\eta \|p\|}{\|g\| + w \|p\| + \epsilon} \\
        b &\leftarrow m b + \lambda (g + w p) \\
        p &\leftarrow p - \gamma b

    with the trust coefficient :math:`\eta`, weight decay `w`, momentum `m`
    and learning rate :math:`\gamma`. With ``clip``,
    :math:`\min(\lambda / \gamma, 1)` takes the place of :math:`\lambda`.
    Where the norm of the parameter or of its gradient is 0, `g` is used as it
    is, without weight decay.

    The learning rate is outside the momentum buffer `b`, as in PyTorch's
    SGD. mmpretrain's ``LARS`` keeps it inside (:math:`b \leftarrow m b +
    \gamma \lambda (g + w p)`, :math:`p \leftarrow p - b`): the two are equal
    as long as it is constant, and differ while it changes. Where a norm is 0,
    LARS keeps the weight decay.

    Each group of parameters may have settings of its own, from
    ``custom_keys`` of ``paramwise_cfg`` for instance. The gradients in
    ``parameter.grad`` are not changed.

    Args:
        params (Iterable): Parameters, or dictionaries of groups of them.
        lr (float): Learning rate.
        trust_coefficient (float): :math:`\eta`. Defaults to 0.001.
        clip (bool): Whether the learning rate is an upper bound of the local
            one. Defaults to False.
        eps (float): :math:`\epsilon`. Defaults to 1e-8.
        **kwargs (Any): Of :class:`torch.optim.SGD`, such as ``momentum`` and
            ``weight_decay``.

    Raises:
        ValueError: If a setting is out of range or not supported.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        trust_coefficient: float = 0.001,
        clip: bool = False,
        eps: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        super().__init__(params, lr, **kwargs)
        own = dict(trust_coefficient=trust_coefficient, clip=clip, eps=eps)
        self.defaults.update(own)
        for group in self.param_groups:
            for key, value in own.items():
                group.setdefault(key, value)
            if not group['trust_coefficient'] > 0 or not group['eps'] >= 0:
                raise ValueError(
                    f'trust_coefficient={group["trust_coefficient"]} and '
                    f'eps={group["eps"]} of LARC: the first must be '
                    'positive, the second at least 0.'
                )
            if group['fused'] or group['differentiable']:
                raise ValueError(
                    'LARC supports neither fused=True nor '
                    'differentiable=True: leave them out.'
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters.

        Args:
            closure (Callable, optional): Computes the loss anew, with its
                gradient. Defaults to None.

        Returns:
            Any: The closure's loss, or None.

        Raises:
            ValueError: If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group['params'] if p.grad is not None]
            grads = [self._scaled_grad(p, group) for p in params]
            buffers = [self.state[p].get('momentum_buffer') for p in params]
            # torch's functional SGD, not super().step(): that would read the
            # gradients and weight decay of the groups, and call the step
            # hooks again
            sgd(
                params,
                grads,
                buffers,
                foreach=group['foreach'],
                weight_decay=0.0,
                momentum=group['momentum'],
                lr=group['lr'],
                dampening=group['dampening'],
                nesterov=group['nesterov'],
                maximize=False,
            )
            for parameter, buffer in zip(params, buffers, strict=True):
                self.state[parameter]['momentum_buffer'] = buffer
        return loss

    @staticmethod
    def _scaled_grad(
        parameter: torch.Tensor, group: dict[str, Any]
    ) -> torch.Tensor:
        """Add the weight decay and scale; always a new tensor."""
        grad = parameter.grad
        assert grad is not None
        if grad.is_sparse:
            raise ValueError(
                'LARC takes no sparse gradients, and that of a parameter of '
                f'shape {tuple(parameter.shape)} is one. Use RowSGD for it.'
            )
        if group['maximize']:
            grad = -grad
        weight_decay = group['weight_decay']
        norm, grad_norm = parameter.norm(), grad.norm()
        rate = group['trust_coefficient'] * norm
        rate = rate / (grad_norm + weight_decay * norm + group['eps'])
        if group['clip']:
            rate = (rate / group['lr']).clamp(max=1)
        scaled = grad.add(parameter, alpha=weight_decay).mul_(rate)
        # torch.where instead of `if`, which would wait for the GPU
        return torch.where((norm == 0) | (grad_norm == 0), grad, scaled)
