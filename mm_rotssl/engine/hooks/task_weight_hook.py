import math

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_rotssl.models.selfsup import MultiTask
from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import unwrap_model


@HOOKS.register_module()
class TaskWeightHook(Hook):
    """Change the weight of a task of :class:`MultiTask` linearly.

    Up to ``begin`` the weight is ``start``, after ``end_iter`` or
    ``end_epoch`` it is ``end``, and between them it changes with each step.
    It depends on nothing but the number of the step, so a resumed run goes on
    where it was. It is logged as ``train/weight/TASK``.

    Args:
        task (str): Name of the task.
        start (float): First weight. Defaults to 0.0.
        end (float): Last weight. Defaults to 1.0.
        begin (int): Number of the last step, or epoch, with the first
            weight, counted from 0. Defaults to 0.
        end_iter (int, optional): Number of the first step with the last
            weight. Defaults to None.
        end_epoch (int, optional): Instead of it, that of the first epoch;
            ``begin`` is one of an epoch, then, of whose steps it is the
            first. Defaults to None.

    Raises:
        ValueError: If a weight is negative or not finite, or there is not one
            end, after the beginning.
    """

    def __init__(
        self,
        task: str,
        start: float = 0.0,
        end: float = 1.0,
        begin: int = 0,
        end_iter: int | None = None,
        end_epoch: int | None = None,
    ) -> None:
        for name, weight in (('start', start), ('end', end)):
            if not 0 <= weight < math.inf:
                raise ValueError(
                    f'{name}={weight} of TaskWeightHook for "{task}" must be '
                    'finite and not negative.'
                )
        if (end_iter is None) == (end_epoch is None):
            raise ValueError(
                f'TaskWeightHook for "{task}" needs one of end_iter and '
                f'end_epoch, got {end_iter} and {end_epoch}.'
            )
        last = end_iter if end_iter is not None else end_epoch
        assert last is not None
        if not 0 <= begin < last:
            raise ValueError(
                f'begin={begin} of TaskWeightHook for "{task}" must not be '
                f'negative, and below its end, {last}.'
            )
        self.task = task
        self.start = start
        self.end = end
        self.begin = begin
        self.last = last
        self.by_epoch = end_epoch is not None

    def before_train(self, runner: Runner) -> None:
        """Look for the task.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If the model has no such task, or another hook
                changes its weight.
        """
        model = self._model(runner)
        if not isinstance(model, MultiTask) or self.task not in model.tasks:
            raise ValueError(
                f'TaskWeightHook is to change the weight of "{self.task}", '
                'and model is '
                + (
                    f'a MultiTask of {", ".join(model.tasks)}.'
                    if isinstance(model, MultiTask)
                    else f'a {type(model).__name__}, no mm_rotssl.MultiTask.'
                )
            )
        others = [
            hook
            for hook in runner.hooks
            if isinstance(hook, TaskWeightHook) and hook.task == self.task
        ]
        if len(others) > 1:
            raise ValueError(
                f'custom_hooks has {len(others)} TaskWeightHooks for '
                f'"{self.task}", and the last would always win. Leave one.'
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None
    ) -> None:
        """Set the weight of the step.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not read.
            data_batch (Any): Not read.
        """
        unit = len(runner.train_dataloader) if self.by_epoch else 1
        share = (runner.iter / unit - self.begin) / (self.last - self.begin)
        share = min(max(share, 0.0), 1.0)
        # exact at both ends
        weight = (1 - share) * self.start + share * self.end
        self._model(runner).set_weight(self.task, weight)
        runner.message_hub.update_scalar(f'train/weight/{self.task}', weight)

    @staticmethod
    def _model(runner: Runner) -> MultiTask:
        return unwrap_model(runner.model)
