import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mm_rotssl.datasets import sample_names
from mm_rotssl.models.losses import NCELoss
from mm_rotssl.models.utils import DatasetBound
from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import InputError

from .training_datasets import training_datasets, training_transforms


@HOOKS.register_module()
class BindDatasetHook(Hook):
    """Tell what knows samples by their index which samples these are.

    Before training each part of the model and each transform of the training
    pipeline with a method ``bind_dataset`` is given the names of the samples
    by index, see :func:`mm_rotssl.datasets.sample_names`: memory banks get
    their length from it, a classifier of exemplars is compared with the
    number of seed patches, noise weights find their images. The parts of a
    task of :class:`MultiTask` are given those of its dataset.

    A run that is resumed with other samples, or the same in another order,
    is stopped. What a checkpoint of another run (``load_from``) remembers of
    other samples is left out.
    """

    # the bank has its rows before a checkpoint is loaded into it
    priority = 'HIGH'

    def before_run(self, runner: Runner) -> None:
        """Hand the names to the model and the pipeline.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: If indices of samples are not unique, or a part does
                not fit the dataset.
            TypeError: If nothing tells the samples apart.
        """
        for place, dataset, modules in training_datasets(runner):
            parts = [
                part
                for part in (*modules.values(), *training_transforms(dataset))
                if hasattr(part, 'bind_dataset')
            ]
            # other tasks' samples need not be told apart
            if not parts:
                continue
            try:
                names = sample_names(dataset)
                for part in parts:
                    part.bind_dataset(names)
            except TypeError as error:
                error.args = (f'train_dataloader.dataset{place}: {error}',)
                raise
            except ValueError as error:
                raise InputError(
                    f'train_dataloader.dataset{place}: {error}'
                ) from error

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the samples with those of the checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read.

        Raises:
            InputError: If a resumed run has others.
        """
        state_dict = checkpoint.get('state_dict', checkpoint)
        keys = {key.removeprefix('module.'): key for key in state_dict}

        def saved_fingerprint(name: str) -> int:
            key = keys.get(f'{name}.fingerprint')
            return int(state_dict[key]) if key else 0

        for place, _, modules in training_datasets(runner):
            others = {
                name: module
                for name, module in modules.items()
                if isinstance(module, DatasetBound)
                and int(module.fingerprint)
                and saved_fingerprint(name) != int(module.fingerprint)
                and any(key.startswith(f'{name}.') for key in keys)
            }
            if runner._resume:
                for name in filter(saved_fingerprint, others):
                    raise InputError(
                        f'train_dataloader.dataset{place} is not the training '
                        f'set of the checkpoint: model.{name} knows other '
                        'samples, or the same in another order, by their '
                        'index. Restore the dataset, or start a new run from '
                        'the weights with load_from=CHECKPOINT and without '
                        '--resume.'
                    )
            elif others:
                print_log(
                    f'The checkpoint belongs to other samples than those of '
                    f'train_dataloader.dataset{place}. What it knows of them '
                    f'is left out: model.{", model.".join(others)}.',
                    'current',
                    logging.WARNING,
                )
                self._leave_out(others, modules, keys, state_dict)

    @staticmethod
    def _leave_out(
        others: dict[str, DatasetBound],
        modules: dict[str, Any],
        keys: dict[str, str],
        state_dict: dict,
    ) -> None:
        # the constant of an NCE loss is estimated for a bank
        names = [
            *others,
            *(
                n
                for n, module in modules.items()
                if isinstance(module, NCELoss)
            ),
        ]
        for name in names:
            for key in [key for key in keys if key.startswith(f'{name}.')]:
                del state_dict[keys.pop(key)]
