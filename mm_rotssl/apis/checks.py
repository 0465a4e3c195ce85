"""What is looked at before anything of a run is built."""

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mm_rotssl.utils import InputError

from .config import process_of


def build_datasets(cfg: Config) -> tuple[dict[str, Any], int | None]:
    """Build the datasets of training and validation, and count images.

    What they complain about, such as a missing folder, is so said before
    time is spent on a network.

    Args:
        cfg (Config): Of a run.

    Returns:
        tuple[dict[str, Dataset], int | None]: The datasets by the keys of
        their dataloaders, and the steps of an epoch in each process. Nothing
        on processes that are not connected yet, but the first, which looks
        for all.

    Raises:
        InputError: If a dataset cannot be built, or ``drop_last`` leaves no
            batch of it.
    """
    rank, processes = process_of(cfg)
    if torch.distributed.is_initialized():
        # each sampler has its own part of the images
        rank, parts = 0, 1
    else:
        parts = processes
    datasets: dict[str, Any] = {}
    steps = None
    if rank:
        return datasets, steps
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    for key, settings in _dataloaders(cfg):
        try:
            loader = Runner.build_dataloader(settings, seed=0)
        except (ValueError, RuntimeError, OSError, AssertionError) as error:
            raise InputError(f'{key}: {_reason(error)}') from error
        datasets[key] = loader.dataset
        images = math.ceil(len(loader.sampler) / parts)
        size, last = loader.batch_size, loader.drop_last
        if size is None or isinstance(loader.sampler, InfiniteSampler):
            # batches of another kind, or without an end
            length = len(loader)
        else:
            length = images // size if last else math.ceil(images / size)
            if not length:
                each = ' a process' if processes > 1 else ''
                raise InputError(
                    f'{key}: {images} images{each} are less than one batch '
                    f'of batch_size={size}, and drop_last={last} leaves '
                    f'nothing. Set {key}.batch_size to {images} or less'
                    + (' (--batch-size)' if key == 'train_dataloader' else '')
                    + ', or add images.'
                )
        if key == 'train_dataloader':
            steps = length
    return datasets, steps


def use_datasets(runner: Runner, datasets: dict[str, Any]) -> None:
    """Let a runner take datasets that are built, in place of building them.

    Args:
        runner (Runner): That has not trained yet.
        datasets (dict[str, Dataset]): Of :func:`build_datasets`.
    """
    for key, dataset in datasets.items():
        part, _, inner = key.partition('.')
        settings: Any = {
            'train_dataloader': runner._train_dataloader,
            'val_dataloader': runner._val_dataloader,
            'val_cfg': runner._val_loop,
        }[part]
        if inner:
            settings = settings[inner]
        # the engine copies settings, but no function
        settings['dataset'] = dict(type=_giving(dataset))


def _dataloaders(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dataloaders of training and validation, by their keys."""
    for key in ('train_dataloader', 'val_dataloader'):
        if cfg.get(key):
            yield key, cfg[key]
    for key, value in (cfg.get('val_cfg') or {}).items():
        if isinstance(value, dict) and 'dataset' in value:
            yield f'val_cfg.{key}', value


def _giving(dataset: Any) -> Callable[[], Any]:
    return lambda: dataset


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f'"{error.filename}": {error.strerror}. Set data_root, '
            'data_prefix and ann_file of the dataset to what there is.'
        )
    return str(error) or type(error).__name__


def check_schedule(cfg: Config, epoch_length: int | None = None) -> None:
    """Compare the schedule with the length of the run.

    A scheduler without ``end``, ``T_max`` and the like follows the run. One
    that names a length of its own may disagree with it, where only one of
    the two was changed. Then a cosine would climb again, which is refused;
    elsewhere a warning says what becomes of the schedule.

    Args:
        cfg (Config): Of a run.
        epoch_length (int, optional): Steps of an epoch. Defaults to None:
            schedulers that count the steps of a run of epochs are left out.

    Raises:
        InputError: If a rate would climb again, or a scheduler could not run
            or would have no effect.
    """
    loop = cfg.get('train_cfg') or {}
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        # several optimizers may have one each, by name
        schedulers = [schedulers] if 'type' in schedulers else []
    epochs, steps = loop.get('max_epochs'), loop.get('max_iters')
    if epochs and epoch_length:
        steps = epochs * epoch_length
    remedy = (
        f'Use --epochs {epochs}, which everything follows'
        if epochs
        else 'Change both'
    )
    decays = []
    for i, scheduler in enumerate(schedulers):
        key = 'param_scheduler' + (f'.{i}' if len(schedulers) > 1 else '')
        by_epoch = scheduler.get('by_epoch', True)
        if (
            by_epoch
            and not epochs
            and 'convert_to_iter_based' not in scheduler
        ):
            raise InputError(
                f'{key} counts epochs, but a run of train_cfg.max_iters='
                f'{steps} has none: it would have no effect. Set '
                f'{key}.by_epoch=False, and its lengths in steps.'
            )
        run = epochs if by_epoch else steps
        if run is None:
            continue
        unit = 'epochs' if by_epoch else 'steps'
        begin, end = scheduler.get('begin', 0), scheduler.get('end', run)
        if begin >= end:
            raise InputError(
                f'{key} begins after {begin} {unit}, and the run ends after '
                f'{run}. {remedy}, or change {key}.begin.'
            )
        name, stop = _own_end(scheduler, begin)
        if name in ('T_max', 'total_steps') and stop < min(run, end):
            # whoever names both T_max and a later end wants it to climb
            if name == 'total_steps' or 'end' not in scheduler:
                raise InputError(
                    f'{key}.{name}={scheduler[name]} ends after {stop} of '
                    f'{run} {unit}, and then the rate would climb again. '
                    f'{remedy}, or leave {name} out.'
                )
            stop = end
        if name is not None and stop > run:
            _warn(
                f'{key}.{name}={scheduler[name]} goes on after the {run} '
                f'{unit} of the run, which sees only a part of the schedule. '
                f'{remedy}, unless that is meant.'
            )
        if _class(scheduler).startswith(('Cosine', 'Poly', 'OneCycle')):
            decays.append((stop if name else end) / run)
    if decays and max(decays) < 1:
        _warn(
            f'The schedule ends after {max(decays):.0%} of the run, and the '
            f'rate stays as it is then. {remedy}, unless that is meant.'
        )
    for key, value in _epoch_keys(cfg.get('model'), 'model'):
        if epochs and value >= epochs:
            _warn(
                f'{key}={value} is not reached in a run of {epochs} epochs. '
                f'{remedy}, unless that is meant.'
            )


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)


def _class(settings: dict[str, Any]) -> str:
    kind = settings['type']
    return kind.split('.')[-1] if isinstance(kind, str) else kind.__name__


def _own_end(scheduler: dict[str, Any], begin: int) -> tuple[str | None, int]:
    """The setting that says where a schedule ends, if one does."""
    for name in ('T_max', 'total_steps', 'periods', 'milestones', 'end'):
        value = scheduler.get(name)
        if value is None:
            continue
        if name == 'end':
            return name, value
        if name == 'periods':
            value = sum(value)
        elif name == 'milestones':
            value = max(value, default=0)
        return name, begin + value
    return None, 0


def _epoch_keys(node: Any, path: str) -> Iterator[tuple[str, int]]:
    """Settings in a part of a config that name an epoch."""
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key.endswith('_epoch') and type(value) is int:
            yield f'{path}.{key}', value
        yield from _epoch_keys(value, f'{path}.{key}')
