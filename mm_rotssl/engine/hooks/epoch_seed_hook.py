import random

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mm_rotssl.registry import HOOKS

from .training_datasets import training_dataloader


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _seed_worker(_: int) -> None:
    # Drawn by the dataloader from the main process' generator each time it
    # starts its workers, plus the worker's number.
    _seed(torch.initial_seed() % 2**32)


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Make a resumed run continue as if it had never been stopped.

    The engine saves no random state: a resumed run would draw other crops
    and flips, and, without a configured seed, another order of the data.
    Instead of saving states, for each process, this hook draws a new seed
    at the start of every epoch from the run's seed, the epoch and the rank,
    so that an epoch depends on nothing that came before but the checkpoint.

    It also replaces the engine's seeding of workers, which gives each worker
    the same random numbers in every epoch where workers are started anew
    (``persistent_workers=False``). Persistent workers carry their random
    state from epoch to epoch and can't be resumed exactly; the hook says so.

    A run is exact when it is resumed from the end of an epoch, which is
    when checkpoints are saved by default.
    """

    # before anything that draws random numbers
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Seed sampler and workers.

        Args:
            runner (Runner): The runner.
        """
        dataloader = training_dataloader(runner)
        if dataloader is None:
            return
        dataloader.worker_init_fn = _seed_worker
        # Where no seed is configured the sampler was built before the seed
        # was read from the checkpoint.
        if hasattr(dataloader.sampler, 'seed'):
            # the same on all processes, even with `diff_rank_seed`
            seed = [runner.seed]
            broadcast_object_list(seed)
            dataloader.sampler.seed = seed[0]
        if dataloader.num_workers and dataloader.persistent_workers:
            print_log(
                'train_dataloader.persistent_workers=True: a resumed run '
                'will differ from an uninterrupted one in its augmentation.',
                'current',
                30,
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Start the epoch from a state of its own.

        Args:
            runner (Runner): The runner.
        """
        entropy = np.random.SeedSequence(
            [runner.seed, runner.epoch, get_rank()]
        )
        _seed(int(entropy.generate_state(1)[0]))
