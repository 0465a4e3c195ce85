"""What the training loop adds to the computation that it is there for."""

import copy
import statistics
import tempfile
import time
from collections.abc import Iterator, Sized
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from images import write_images
from measure import Comparison, Result, divide
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import Sampler

from mm_rotssl.models import RotNet
from mm_rotssl.ops import rotate_batch

CONFIG = 'configs/rotnet/rotnet_nin_1xb128-steplr-200e_cifar10.py'
DATA_CONFIG = 'configs/_base_/datasets/cifar10_folder.py'
SIZE = 32
EXEMPLAR_CONFIG = (
    'configs/exemplar_cnn/'
    'exemplar-cnn_64c5-128c5-256c5-512f_1xb128-100e_custom.py'
)
SEEDS_A_IMAGE = 40


class BareSteps:
    """Backbone, loss, gradient and optimizer on one ready batch.

    The rotated copies, or the deformed patches, and their labels are ready
    too, as normalized floats.

    Args:
        runner: Its model and optimizer are copied, the first batch of its
            data is kept.
        iterations: Number of steps.
    """

    def __init__(self, runner: Runner, iterations: int) -> None:
        self.model = copy.deepcopy(runner.model).train()
        self.optimizer = build_optim_wrapper(
            self.model, runner.cfg.optim_wrapper
        ).optimizer
        batch = next(iter(runner.train_dataloader))
        data = self.model.data_preprocessor(batch, True)
        if isinstance(self.model, RotNet):
            self.inputs, self.labels = rotate_batch(data['inputs'])
        else:
            self.inputs = data['inputs']
            self.labels = torch.tensor(
                [sample.exemplar_label for sample in data['data_samples']],
                device=self.inputs.device,
            )
        self.iterations = iterations

    def __call__(self) -> None:
        """Take the steps."""
        model = self.model
        for _ in range(self.iterations):
            feats = model.neck(model.backbone(self.inputs))
            loss = model.head.loss(feats, self.labels)['loss']
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        if self.inputs.is_cuda:
            torch.cuda.synchronize()


class EpochTimer(Hook):
    """Time the runner's epochs, and after each the bare steps.

    The clock runs from before the first hook of an epoch until after the
    last, so the start of the worker processes and the wait for the first
    batch count as well.

    Args:
        iterations: Bare steps after each epoch.
    """

    priority = 'LOWEST'

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.loop: list[float] = []
        self.bare: list[float] = []

    def before_train(self, runner: Runner) -> None:
        """Prepare the bare steps.

        Args:
            runner: The runner.
        """
        self.steps = BareSteps(runner, self.iterations)
        self.start = time.perf_counter()

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop the clock, take the bare steps and start it again.

        Args:
            runner: The runner.
        """
        if self.steps.inputs.is_cuda:
            torch.cuda.synchronize()
        end = time.perf_counter()
        self.steps()
        self.loop.append(end - self.start)
        self.bare.append(time.perf_counter() - end)
        self.start = time.perf_counter()


def _config(
    root: Path, folder: Path, width: int, batch_size: int, **train_cfg: int
) -> Config:
    config = Config.fromfile(root / CONFIG)
    data = Config.fromfile(root / DATA_CONFIG)
    config.train_dataloader = data.train_dataloader
    config.model.data_preprocessor = data.data_preprocessor
    options: dict[str, Any] = {
        'work_dir': str(folder / 'work_dir'),
        'model.backbone.base_channels': width,
        'model.head.in_channels': width,
        'train_dataloader.batch_size': batch_size,
        'train_dataloader.dataset.data_root': str(folder / 'images'),
        # the config logs every hundred steps; here there are fewer
        'default_hooks.logger.interval': 4,
    }
    config.merge_from_dict(options)
    config.train_cfg = dict(by_epoch=True, **train_cfg)
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    return config


def training_loop(
    root: Path,
    width: int,
    batch_size: int,
    iterations: int,
    repetitions: int,
    workers: int,
) -> Result:
    """Images per second of a run over those of the bare steps.

    Args:
        root: The checkout.
        width: Of the network in network, a multiple of 6.
        batch_size: Images a step.
        iterations: Steps a repetition.
        repetitions: How often both are timed, after a warm-up.
        workers: Processes that read images, started anew in each epoch.

    Returns:
        The whole loop over the bare steps.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = batch_size * iterations
        write_images(folder / 'images', images, SIZE, SIZE, 95)
        config = _config(
            root, folder, width, batch_size, max_epochs=repetitions + 1
        )
        config.train_dataloader.num_workers = workers
        loop, bare = _timed(config, iterations, folder)
    return _result(
        dict(
            config=CONFIG,
            data_config=DATA_CONFIG,
            width=width,
            batch_size=batch_size,
            iterations=iterations,
            repetitions=repetitions,
            workers=workers,
        ),
        'images',
        images,
        loop,
        bare,
        goal=0.95,
    )


def _timed(
    config: Config, iterations: int, folder: Path
) -> tuple[list[float], list[float]]:
    """Seconds of the epochs and of the bare steps, without the first."""
    timer = EpochTimer(iterations)
    # the log lines are part of the loop, but nobody's concern here
    with (
        (folder / 'stdout.txt').open('w') as file,
        redirect_stdout(file),
    ):
        runner = Runner.from_cfg(config)
        runner.register_hook(timer)
        runner.train()
    return timer.loop[1:], timer.bare[1:]


def _result(
    settings: dict[str, Any],
    what: str,
    count: int,
    loop: list[float],
    bare: list[float],
    goal: float,
) -> Result:
    return Result(
        settings=settings,
        figures={
            f'loop, {what} per second': count / statistics.median(loop),
            f'bare, {what} per second': count / statistics.median(bare),
        },
        comparisons=[
            Comparison(
                f'{what} per second of the training loop / of bare steps',
                divide(bare, loop),
                goal=goal,
                at_least=True,
            )
        ],
    )


def exemplar_loop(
    root: Path,
    arch: str,
    batch_size: int,
    num_exemplars: int,
    iterations: int,
    repetitions: int,
    workers: int,
) -> Result:
    """Patches per second of a run of Exemplar-CNN over the bare steps.

    Args:
        root: The checkout.
        arch: Layers of the network.
        batch_size: Patches a step.
        num_exemplars: Number of seeds.
        iterations: Steps a repetition.
        repetitions: How often both are timed, after a warm-up.
        workers: Processes that draw deformations, started anew in each
            epoch.

    Returns:
        The whole loop over the bare steps.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = -(-num_exemplars // SEEDS_A_IMAGE)
        # twice as many as needed: none is used up
        write_images(folder / 'images', 2 * count, 256, 256, 95)
        config = Config.fromfile(root / EXEMPLAR_CONFIG)
        channels = int(arch.rpartition('-')[2].rstrip('f'))
        dataset = config.train_dataloader.dataset
        dataset.dataset.data_root = str(folder / 'images')
        dataset.seed_patches = dict(
            num_exemplars=num_exemplars, max_per_image=SEEDS_A_IMAGE
        )
        # the first entries of an epoch's order, as many as are timed
        config.train_dataloader.sampler = dict(
            type='FirstOfShuffled', count=batch_size * iterations
        )
        options: dict[str, Any] = {
            'work_dir': str(folder / 'work_dir'),
            'model.backbone.arch': arch,
            'model.backbone.out_indices': -1,
            'model.head.in_channels': channels,
            'model.head.num_exemplars': num_exemplars,
            'train_dataloader.batch_size': batch_size,
            'train_dataloader.num_workers': workers,
            'train_cfg.max_epochs': repetitions + 1,
            'default_hooks.logger.interval': 4,
        }
        config.merge_from_dict(options)
        loop, bare = _timed(config, iterations, folder)
    return _result(
        dict(
            config=EXEMPLAR_CONFIG,
            arch=arch,
            batch_size=batch_size,
            num_exemplars=num_exemplars,
            iterations=iterations,
            repetitions=repetitions,
            workers=workers,
        ),
        'patches',
        batch_size * iterations,
        loop,
        bare,
        goal=0.9,
    )


# by name: older engines write the config down, and can't write a class
@DATA_SAMPLERS.register_module()
class FirstOfShuffled(Sampler):
    """Random entries of a dataset, so many in each epoch.

    Args:
        dataset: The dataset.
        count: How many.
        seed: Of their order.
    """

    def __init__(self, dataset: Sized, count: int, seed: int = 0) -> None:
        self.dataset = dataset
        self.count = count
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Change the order.

        Args:
            epoch: Number of the epoch.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator)
        return iter(order[: self.count].tolist())

    def __len__(self) -> int:
        return self.count
