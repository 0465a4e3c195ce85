from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mm_rotssl.models.heads import ExemplarHead
from mm_rotssl.registry import HOOKS

_KEY = 'exemplar_seeds'


@HOOKS.register_module()
class SeedsCheckHook(Hook):
    """See to it that the classes of an :class:`ExemplarHead` are the seeds.

    The classifier is as large as the config says, before the data set is
    read; classes without a seed would go unnoticed. So would other seeds
    when a run is resumed, whose rows of the classifier belong to the old
    ones: checkpoints keep a fingerprint of the seeds.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare the numbers.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If they differ.
        """
        metainfo = self._metainfo(runner)
        if metainfo is None:
            return
        seeds = metainfo.get('num_seeds')
        for name, module in runner.model.named_modules():
            if isinstance(module, ExemplarHead) and seeds != module.num_seeds:
                raise ValueError(
                    f'The training set has {seeds} seeds, and model.'
                    f'{name.removeprefix("module.")}.num_seeds='
                    f'{module.num_seeds}. Set it to {seeds}.'
                    if seeds
                    else 'The training set has no seeds. Use '
                    "dict(type='mm_rotssl.ExemplarDataset', ...)."
                )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the fingerprint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be written.
        """
        metainfo = self._metainfo(runner)
        if metainfo and 'fingerprint' in metainfo:
            checkpoint[_KEY] = metainfo['fingerprint']

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the fingerprints of a run that is resumed.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read.

        Raises:
            ValueError: If they differ.
        """
        metainfo = self._metainfo(runner)
        if not runner._resume or not metainfo:
            return
        before, now = checkpoint.get(_KEY), metainfo.get('fingerprint')
        if None not in (before, now) and before != now:
            raise ValueError(
                'The seeds are not those of the checkpoint '
                f'(fingerprint {before} then, {now} now), and its classifier '
                'knows the old ones by their numbers. Restore the file or '
                'settings of train_dataloader.dataset.seeds, or start a new '
                'run from its backbone with load_from=CHECKPOINT and without '
                '--resume.'
            )

    @staticmethod
    def _metainfo(runner: Runner) -> dict | None:
        # validation and tests alone need no training set
        if not isinstance(runner._train_loop, BaseLoop):
            return None
        return getattr(runner.train_dataloader.dataset, 'metainfo', {})
