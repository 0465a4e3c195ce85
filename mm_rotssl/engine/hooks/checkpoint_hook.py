from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine import hooks
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner import Runner

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import write_file


@register_backend('mm_rotssl_replacing')
class _ReplacingBackend(LocalBackend):
    """Files on this machine that are never there in part."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_file(filepath, obj)


@HOOKS.register_module()
class CheckpointHook(hooks.CheckpointHook):
    """Save checkpoints so that a whole one is there at any time.

    The engine's hook with all of its settings, in another order: a checkpoint
    is written beside its place and moved there, then ``last_checkpoint``
    names it, and what is outdated is deleted at the end. A run that is killed
    at any moment, or meets a full disk, goes on from the last checkpoint with
    ``--resume``. There must be room for one checkpoint more than
    ``max_keep_ckpts``.

    With ``out_dir`` on a remote storage its own way of writing is left alone.
    """

    backend_args: dict[str, Any] | None

    def before_train(self, runner: Runner) -> None:
        """Prepare to write.

        Args:
            runner (Runner): The runner.
        """
        if (
            self.backend_args is None
            and self.file_client_args is None
            and '://' not in str(self.out_dir)
        ):
            self.backend_args = dict(backend='mm_rotssl_replacing')
        super().before_train(runner)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and step not in [*self.keep_ckpt_ids][-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self._path(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info(
                'keep_ckpt_ids', list(self.keep_ckpt_ids)
            )
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            pointer = Path(runner.work_dir) / 'last_checkpoint'
            write_file(pointer, self.last_ckpt.encode())
            if outdated:
                self._remove(outdated)

    def _save_best_checkpoint(
        self, runner: Runner, metrics: Mapping[str, Any]
    ) -> None:
        if not self.save_best:
            return
        # What the hook does not know of it does not delete before it saves.
        before = self._best_paths()
        self._set_best_paths(dict.fromkeys(before))
        super()._save_best_checkpoint(runner, metrics)
        after = self._best_paths()
        self._set_best_paths(
            {key: after[key] or path for key, path in before.items()}
        )
        for key, path in before.items():
            if path and after[key] not in (None, path) and is_main_process():
                self._remove(path)
                runner.logger.info(
                    f'The previous best checkpoint {path} is removed'
                )

    def _path(self, step: int) -> str:
        path: str = self.file_backend.join_path(
            self.out_dir, self.filename_tmpl.format(step)
        )
        return path

    def _best_paths(self) -> dict[str, str | None]:
        if len(self.key_indicators) == 1:
            return {'': self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best_paths(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict = paths

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):
            # of an engine that saves folders
            self.file_backend.rmtree(path)
