from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_rotssl.models.heads import ExemplarHead
from mm_rotssl.registry import HOOKS

from .training_streams import training_streams

_KEY = 'exemplar_seeds'


@HOOKS.register_module()
class SeedsCheckHook(Hook):
    """See to it that the classes of an :class:`ExemplarHead` are the seeds.

    The classifier is as large as the config says, before the data set is
    read; classes without a seed would go unnoticed. So would other seeds
    when a run is resumed, whose rows of the classifier belong to the old
    ones: checkpoints keep a fingerprint of the seeds. A task of
    :class:`MultiTask` is compared with its own stream.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare the numbers.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If they differ.
        """
        for place, dataset, modules in training_streams(runner):
            seeds = getattr(dataset, 'metainfo', {}).get('num_seeds')
            for name, module in modules.items():
                if (
                    isinstance(module, ExemplarHead)
                    and seeds != module.num_seeds
                ):
                    raise ValueError(
                        f'train_dataloader.dataset{place} has {seeds} seeds, '
                        f'and model.{name}.num_seeds={module.num_seeds}. Set '
                        f'it to {seeds}.'
                        if seeds
                        else f'train_dataloader.dataset{place} has no seeds. '
                        "Use dict(type='mm_rotssl.ExemplarDataset', ...)."
                    )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the fingerprint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be written.
        """
        for place, dataset, _ in training_streams(runner):
            metainfo = getattr(dataset, 'metainfo', {})
            if 'fingerprint' in metainfo:
                checkpoint[f'{_KEY}{place}'] = metainfo['fingerprint']

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the fingerprints of a run that is resumed.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read.

        Raises:
            ValueError: If they differ.
        """
        if not runner._resume:
            return
        for place, dataset, _ in training_streams(runner):
            before = checkpoint.get(f'{_KEY}{place}')
            now = getattr(dataset, 'metainfo', {}).get('fingerprint')
            if None not in (before, now) and before != now:
                raise ValueError(
                    'The seeds are not those of the checkpoint '
                    f'(fingerprint {before} then, {now} now), and its '
                    'classifier knows the old ones by their numbers. Restore '
                    f'the file or settings of train_dataloader.dataset{place}'
                    '.seeds, or start a new run from its backbone with '
                    'load_from=CHECKPOINT and without --resume.'
                )
