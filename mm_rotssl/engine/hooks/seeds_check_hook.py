from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_rotssl.models.heads import ExemplarHead
from mm_rotssl.registry import HOOKS

from .training_datasets import training_datasets

_KEY = 'seed_patches'


@HOOKS.register_module()
class SeedsCheckHook(Hook):
    """Check that an :class:`ExemplarHead` has a class for each seed patch.

    The classifier is as large as the config says, before the dataset is
    read; classes without a seed would go unnoticed. So would other seed
    patches when a run is resumed, whose rows of the classifier belong to the
    old
    ones: checkpoints keep a fingerprint of the seed patches. A task of
    :class:`MultiTask` is compared with its own stream.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare the numbers.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If they differ.
        """
        for place, dataset, modules in training_datasets(runner):
            seed_patches = getattr(dataset, 'metainfo', {}).get(
                'num_exemplars'
            )
            for name, module in modules.items():
                if (
                    isinstance(module, ExemplarHead)
                    and seed_patches != module.num_exemplars
                ):
                    raise ValueError(
                        f'train_dataloader.dataset{place} has {seed_patches} '
                        f'seed patches, and '
                        f'model.{name}.num_exemplars={module.num_exemplars}. '
                        f'Set it to {seed_patches}.'
                        if seed_patches
                        else f'train_dataloader.dataset{place} has no seed '
                        'patches. Use '
                        "dict(type='mm_rotssl.ExemplarDataset', ...)."
                    )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the fingerprint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be written.
        """
        for place, dataset, _ in training_datasets(runner):
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
        for place, dataset, _ in training_datasets(runner):
            before = checkpoint.get(f'{_KEY}{place}')
            now = getattr(dataset, 'metainfo', {}).get('fingerprint')
            if None not in (before, now) and before != now:
                raise ValueError(
                    'The seed patches are not those of the checkpoint '
                    f'(fingerprint {before} then, {now} now), and its '
                    'classifier knows the old ones by their numbers. Restore '
                    f'the file or settings of train_dataloader.dataset{place}'
                    '.seed patches, or start a new run from its backbone with '
                    'load_from=CHECKPOINT and without --resume.'
                )
