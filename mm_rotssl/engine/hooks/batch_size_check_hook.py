import logging
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mm_rotssl.registry import HOOKS
from mm_rotssl.utils import InputError

from .training_datasets import training_dataloader


@HOOKS.register_module()
class BatchSizeCheckHook(Hook):
    """For losses over the batch, such as :class:`UniformPriorCrossEntropy`.

    An image's part in such a loss depends on the others of the batch, so
    all batches have to be of the same size, and batches that are added up
    are no larger batch.
    """

    def before_run(self, runner: Runner) -> None:
        """Look at batches and optimizer.

        Args:
            runner (Runner): The runner.

        Raises:
            InputError: If the last batch of an epoch is smaller.
        """
        loader: Any = training_dataloader(runner)
        if loader is None:
            return
        images = len(loader.sampler)
        # an endless sampler has a length, but no last batch
        if isinstance(loader.sampler, InfiniteSampler):
            images = 0
        size = loader.batch_size
        if size and not loader.drop_last and images % size:
            raise InputError(
                f'{images} images a process and train_dataloader.'
                f'batch_size={size} leave a last batch of {images % size}, '
                'and the loss needs all batches alike: targets are shares of '
                'the batch. Set train_dataloader.drop_last=True.'
            )
        count = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if count > 1:
            print_log(
                f'optim_wrapper.accumulative_counts={count} adds up the '
                f'gradients of {count} batches. It does not enlarge the '
                'batch of this loss, in which classes are made equally '
                f'large: that stays at {size} images a process.',
                'current',
                logging.WARNING,
            )
