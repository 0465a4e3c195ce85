from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import InputError, nonfinite_names, unwrap_model


@HOOKS.register_module()
class DivergenceCheckHook(Hook):
    """Stop a run that has diverged, and save nothing of it.

    Where a loss is NaN or infinite in a few steps in a row, or once and has
    spoiled the weights, nothing is learned any more. A single one may be
    passed over by mixed precision; an infinite gradient, which is how that
    finds its scale, is no loss. Weights
    that are not finite are never saved, so that the last checkpoint is a good
    one. Several processes stop together.

    The engine reads the loss of every step to log it, so looking at it costs
    next to nothing.

    Args:
        patience (int): Steps in a row. Defaults to 3.
        interval (int): Several processes compare notes every so many steps,
            and after each epoch. Defaults to 10.
    """

    def __init__(self, patience: int = 3, interval: int = 10) -> None:
        self.patience = patience
        self.interval = interval
        self._count = 0
        self._first = 'The loss of another process is not finite.'
        self._unset: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Note what has no value yet.

        Args:
            runner (Runner): The runner.
        """
        # such as the constant of an NCE loss, until it is estimated
        self._unset = set(
            nonfinite_names(unwrap_model(runner.model).state_dict())
        )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Look at the loss.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not read.
            data_batch (Any): Not read.
            outputs (dict, optional): Name -> value, of which those count
                whose names contain "loss".

        Raises:
            InputError: If it has not been finite for ``patience`` steps.
        """
        losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        if _is_finite(losses.get('loss', list(losses.values()))):
            self._count = 0
        else:
            if not self._count:
                self._first = self._describe(runner, losses)
            self._count += 1
        if get_world_size() == 1 or (runner.iter + 1) % self.interval == 0:
            self._decide(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Compare notes before a checkpoint is saved.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: If a loss has not been finite for ``patience`` steps.
        """
        self._decide(runner)

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Look at the weights.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is to be saved.

        Raises:
            InputError: If they are not finite.
        """
        names = set(nonfinite_names(checkpoint['state_dict'])) - self._unset
        if names:
            first = next(n for n in checkpoint['state_dict'] if n in names)
            self._stop(
                runner,
                self._first
                if self._count
                else f'After step {checkpoint["meta"]["iter"]} '
                f'model.{first} is not finite.',
            )

    def _decide(self, runner: Runner) -> None:
        count = torch.tensor(self._count)
        all_reduce(count, 'max')
        # with such weights, which are those of all processes, no loss is
        # finite any more
        if count >= self.patience or (count and _nonfinite_parameters(runner)):
            self._stop(runner, self._first)

    @staticmethod
    def _describe(runner: Runner, losses: dict[str, Any]) -> str:
        parts = [k for k, v in losses.items() if not _is_finite(v)]
        # the sum says less than its part
        parts = [k for k in parts if k != 'loss'] or parts
        weights = _nonfinite_parameters(runner)
        return (
            f'{", ".join(parts)} is not finite since step {runner.iter + 1} '
            f'(epoch {runner.epoch + 1}); '
            + (
                f'the first parameter that is not is model.{weights[0]}.'
                if weights
                else 'all parameters still are.'
            )
        )

    @staticmethod
    def _stop(runner: Runner, what: str) -> None:
        pointer = Path(runner.work_dir) / 'last_checkpoint'
        raise InputError(
            f'Training has diverged. {what} Lower the learning rate (--lr), '
            'or limit gradients with optim_wrapper.clip_grad=dict('
            'max_norm=1.0). '
            + (
                f'The last finite checkpoint is "{pointer.read_text()}".'
                if pointer.is_file()
                else 'Nothing was saved.'
            )
        )


def _nonfinite_parameters(runner: Runner) -> list[str]:
    return nonfinite_names(dict(unwrap_model(runner.model).named_parameters()))


def _is_finite(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return bool(torch.as_tensor(value).isfinite().all())
