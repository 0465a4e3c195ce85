import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mm_rotssl.datasets import image_keys
from mm_rotssl.models.losses import NCELoss
from mm_rotssl.models.memories import MemoryBank, NearestNeighborQueue
from mm_rotssl.registry import HOOKS

from .training_datasets import training_datasets


@HOOKS.register_module()
class BindDatasetHook(Hook):
    """Tell the model which images it is trained on.

    What a model remembers of single images, it remembers by their index:
    the rows of a memory bank, noise weights. Before training each part of
    the model with a method ``bind_dataset`` is given the names of the
    images by index, see :func:`mm_rotssl.datasets.image_keys`; memory
    banks get their length from it. The parts of a task of
    :class:`MultiTask` are given those of its stream.

    A run that is resumed with other images, or the same in another
    order, is stopped: rows would belong to other images. Weights of
    another dataset (``load_from``) are taken without its bank, those of
    any other run without its queue of neighbors.
    """

    # the bank has its rows before a checkpoint is loaded into it
    priority = 'HIGH'

    def before_run(self, runner: Runner) -> None:
        """Hand the names to the model.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If indices of images are not unique, or a part does
                not fit the dataset.
            TypeError: If nothing tells the images apart.
        """
        for place, dataset, modules in training_datasets(runner):
            parts = [
                module
                for module in modules.values()
                if hasattr(module, 'bind_dataset')
            ]
            # other tasks' images need not be told apart
            if not parts:
                continue
            try:
                keys = image_keys(dataset)
                for module in parts:
                    module.bind_dataset(keys)
            except (TypeError, ValueError) as error:
                # which of the streams
                error.args = (f'train_dataloader.dataset{place}: {error}',)
                raise

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the images with those that the bank was made of.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was read.

        Raises:
            ValueError: If a resumed run has others.
        """
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        state_dict = checkpoint.get('state_dict', checkpoint)
        keys = {key.removeprefix('module.'): key for key in state_dict}

        def leave_out(modules: dict[str, Any], *kinds: type) -> None:
            for name, module in modules.items():
                if isinstance(module, kinds):
                    for key in [k for k in keys if k.startswith(f'{name}.')]:
                        del state_dict[keys.pop(key)]

        if not runner._resume:
            # its indices are those of the images of another run
            leave_out(dict(model.named_modules()), NearestNeighborQueue)
        for place, _, parts in training_datasets(runner):
            other = [
                name
                for name, module in parts.items()
                if isinstance(module, MemoryBank)
                and f'{name}.fingerprint' in keys
                and int(state_dict[keys[f'{name}.fingerprint']])
                not in (0, int(module.fingerprint))
                and int(module.fingerprint)
            ]
            if not other:
                continue
            before = len(state_dict[keys[f'{other[0]}.feature_bank']])
            now = len(parts[other[0]])
            if runner._resume:
                raise ValueError(
                    f'train_dataloader.dataset{place} is not the training '
                    f'set of the checkpoint: {before} images then, {now} '
                    'now'
                    + (', others or in another order' if before == now else '')
                    + '. The rows of its memory bank belong to those '
                    'images. Restore them, or start a new run from its '
                    'weights with load_from=CHECKPOINT and without --resume.'
                )
            print_log(
                'The memory bank of the checkpoint belongs to other images '
                f'than those of train_dataloader.dataset{place} and is left '
                'out.',
                'current',
                logging.WARNING,
            )
            leave_out(parts, MemoryBank, NCELoss)
