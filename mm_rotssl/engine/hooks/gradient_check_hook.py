import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.hooks import RemovableHandle

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import InputError, unwrap_model


@HOOKS.register_module()
class GradientCheckHook(Hook):
    """See to it that what is to be trained is trained.

    A parameter that no gradient reaches stays as it was initialized, without
    a word: a wrong ``out_indices``, a tensor that was detached. Here those
    are named that have not had a gradient in the first steps. Where none of
    the backbone has one, the run is stopped: nothing would come of it. Other
    parameters may be meant for later, so there is a warning. Parameters with
    ``requires_grad=False``, as those of frozen stages and momentum encoders,
    are left alone; a gradient of zero is one.

    Nothing is left of it, in time or memory, as soon as all have had one.

    Args:
        steps (int): How many steps, at most those of an epoch, to wait.
            Defaults to 10.
    """

    def __init__(self, steps: int = 10) -> None:
        self.steps = steps
        self._end = 0
        self._handles: dict[str, RemovableHandle] = {}
        self._seen: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Listen to all parameters.

        Args:
            runner (Runner): The runner.
        """
        model = unwrap_model(runner.model)
        self._end = runner.iter + self.steps
        self._seen = set()
        # not after a step, when the gradients have been deleted
        self._handles = {
            name: parameter.register_hook(
                lambda _, name=name: self._seen.add(name)
            )
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Look who has had a gradient.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not read.
            data_batch (Any): Not read.
            outputs (dict, optional): Not read.

        Raises:
            InputError: If none of the backbone has.
        """
        if not self._handles:
            return
        if self._seen == self._handles.keys():
            self._stop_listening()
        elif runner.iter + 1 >= self._end:
            self._decide()

    def after_train_epoch(self, runner: Runner) -> None:
        """Look who has had a gradient in a short epoch.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: If none of the backbone has.
        """
        if self._handles:
            self._decide()

    def _stop_listening(self) -> list[str]:
        names = list(self._handles)
        for handle in self._handles.values():
            handle.remove()
        self._handles = {}
        return names

    def _decide(self) -> None:
        names = self._stop_listening()
        missing = [name for name in names if name not in self._seen]
        backbone = [name for name in names if name.startswith('backbone.')]
        some = ', '.join([f'model.{name}' for name in missing[:5]])
        some += ', ...' if len(missing) > 5 else ''
        if backbone and self._seen.isdisjoint(backbone):
            raise InputError(
                f'None of the {len(backbone)} parameters of model.backbone '
                f'has had a gradient ({some}): something between it and the '
                'loss cuts gradients off. Set requires_grad=False of what is '
                'not to be trained.'
            )
        if missing:
            print_log(
                f'{len(missing)} of {len(names)} trainable parameters have '
                f'had no gradient yet: {some}. They stay as they are, unless '
                'the loss reaches them later.',
                'current',
                logging.WARNING,
            )
