import atexit
import logging
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mm_rotssl.registry import HOOKS


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """A live bar in the terminal instead of log lines.

    Shows the iteration, the newest value of some scalars and the time left.
    While it is there the logger's lines below warnings go to the log file
    alone. Where the output is no terminal (a file, a pipe, a scheduler) the
    hook does nothing and the usual log lines are printed.

    Args:
        scalars (dict[str, str]): What to show: heading to name of the scalar
            in the message hub, 'train/...' or 'val/...'. One that has no
            value yet is left out. Defaults to the loss, the rotation
            accuracy and the best stage's kNN accuracy.
    """

    # after the log processor has taken in the iteration's values
    priority = 'LOWEST'

    def __init__(self, scalars: dict[str, str] | None = None) -> None:
        self.scalars = scalars or {
            'loss': 'train/loss',
            'rotation %': 'train/rotation_accuracy',
            'kNN %': 'val/knn/best',
        }
        self._progress: Progress | None = None
        self._muted: list[tuple[logging.Handler, int]] = []

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Show the bar.

        Args:
            runner (Runner): The runner.
        """
        console = Console()
        if not console.is_terminal:
            return
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                self._muted.append((handler, handler.level))
                handler.setLevel(logging.WARNING)
        self._progress = Progress(
            TextColumn('epoch {task.fields[epoch]}'),
            # narrow, so that all fits into 80 columns
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TextColumn('{task.fields[values]}'),
            TextColumn('left'),
            TimeRemainingColumn(),
            console=console,
        )
        self._progress.add_task(
            '',
            total=runner.max_iters,
            completed=runner.iter,
            epoch='',
            values='',
        )
        self._progress.start()
        # an exception must not leave the terminal without its cursor
        atexit.register(self._stop)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Move the bar on.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not read.
            data_batch (Any): Not read.
            outputs (dict, optional): Not read.
        """
        if self._progress is None:
            return
        known = runner.message_hub.log_scalars
        values = '  '.join(
            f'{heading} {known[name].current():.3g}'
            for heading, name in self.scalars.items()
            if name in known
        )
        self._progress.update(
            self._progress.task_ids[0],
            completed=runner.iter + 1,
            epoch=f'{runner.epoch + 1}/{runner.max_epochs}',
            values=values,
        )

    def after_train(self, runner: Runner) -> None:
        """Leave the finished bar and let the logger speak again.

        Args:
            runner (Runner): The runner.
        """
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            for handler, level in self._muted:
                handler.setLevel(level)
            self._muted.clear()
