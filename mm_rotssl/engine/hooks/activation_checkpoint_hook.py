from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial, wraps
from operator import attrgetter
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import unwrap_model


@HOOKS.register_module()
class ActivationCheckpointHook(Hook):
    """Let ``activation_checkpointing`` of the config train what it says.

    The engine's own way asks the inputs of a module for a gradient, which
    images do not have: with ``activation_checkpointing=['backbone']`` nothing
    of the backbone would be trained. And batch normalization would count each
    batch twice, once more when activations are computed again. Here they are
    computed with copies of the buffers, and a run with the setting equals one
    without.
    """

    def before_train(self, runner: Runner) -> None:
        """Replace what the engine has put around the modules.

        Args:
            runner (Runner): The runner.
        """
        names = runner.cfg.get('activation_checkpointing') or []
        model = unwrap_model(runner.model)
        for name in [names] if isinstance(names, str) else names:
            module = attrgetter(name)(model)
            module.forward = _recomputed(module, module.forward.__wrapped__)


def _recomputed(module: nn.Module, forward: Callable) -> Callable:
    @wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            context_fn=partial(_contexts, module),
            **kwargs,
        )

    return wrapper


def _contexts(
    module: nn.Module,
) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _with_copied_buffers(module)


@contextmanager
def _with_copied_buffers(module: nn.Module) -> Iterator[None]:
    parts = list(module.modules())
    originals = [dict(part._buffers) for part in parts]
    for part in parts:
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for part, buffers in zip(parts, originals, strict=True):
            part._buffers.update(buffers)
