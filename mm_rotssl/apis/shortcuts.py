"""Changes of a config that concern several of its settings."""

import inspect
import math
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from mm_rotssl.registry import DATASETS, MODELS


def apply_shortcuts(
    cfg: Config,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    crop_size: int | None = None,
    data: str | Path | None = None,
) -> None:
    """Change what people change most, with all that depends on it.

    Args:
        cfg (Config): Changed in place.
        epochs (int, optional): See :func:`set_epochs`. Defaults to None, as
            in the config, and so do the others.
        batch_size (int, optional): Training images a step and process.
        lr (float, optional): Learning rate of the optimizer.
        crop_size (int, optional): See :func:`set_crop_size`.
        data (str | Path, optional): See :func:`set_data`.

    Raises:
        ValueError: If one of them would have no effect in this config.
    """
    if epochs is not None:
        set_epochs(cfg, epochs)
    if batch_size is not None:
        _check_positive('batch-size', batch_size)
        if 'batch_size' not in (cfg.get('train_dataloader') or {}):
            raise ValueError(
                f'--batch-size {batch_size}: {cfg.filename} has no '
                'train_dataloader.batch_size.'
            )
        cfg.train_dataloader.batch_size = batch_size
    if lr is not None:
        _check_positive('lr', lr)
        if 'optimizer' not in (cfg.get('optim_wrapper') or {}):
            raise ValueError(
                f'--lr {lr}: {cfg.filename} has no optim_wrapper.optimizer.'
            )
        cfg.optim_wrapper.optimizer.lr = lr
    if crop_size is not None:
        set_crop_size(cfg, crop_size)
    if data is not None:
        set_data(cfg, data)


def set_epochs(cfg: Config, epochs: int) -> None:
    """Change the length of a run; what is tied to epochs follows.

    A warm-up keeps its length, but takes no more than half of a shorter run
    unless it did before. Everything after it is stretched or shortened in
    proportion, to whole epochs: begin, end and periods of each
    ``param_scheduler``, and settings such as ``model.noise_start_epoch``.
    Schedulers of which nothing is left are removed. Those that count
    iterations, or decay by a factor in each epoch, stay as they are. What is
    done every few epochs, such as validation and checkpoints, is done after
    the last one at the latest.

    Args:
        cfg (Config): Changed in place.
        epochs (int): The new ``train_cfg.max_epochs``.

    Raises:
        ValueError: If the config counts iterations, or the number is not
            positive.
    """
    _check_positive('epochs', epochs)
    loop: dict[str, Any] = cfg.get('train_cfg') or {}
    if 'max_epochs' not in loop:
        raise ValueError(
            f'--epochs {epochs}: {cfg.filename} has no train_cfg.max_epochs. '
            'Set the length of a run of iterations, and the schedule to fit, '
            'by --cfg-options train_cfg.max_iters=N param_scheduler=...'
        )
    schedulers = cfg.get('param_scheduler') or []
    single = isinstance(schedulers, dict)
    schedulers = [schedulers] if single else list(schedulers)
    by_epoch = [s for s in schedulers if s.get('by_epoch', True)]
    old = loop['max_epochs']
    warmup = max((_warmup(s, old) for s in by_epoch), default=0)
    place = _rescaling(old, epochs, warmup)
    for scheduler in by_epoch:
        _rescale_scheduler(scheduler, place)
    left = [
        s
        for s in schedulers
        if s.get('begin', 0)
        < s.get('end', epochs if s.get('by_epoch', True) else math.inf)
    ]
    if not single or not left:
        cfg.param_scheduler = left
    hooks = [
        *filter(None, (cfg.get('default_hooks') or {}).values()),
        *(cfg.get('custom_hooks') or []),
    ]
    for node in (*_dicts(cfg.get('model')), *hooks):
        for key, value in node.items():
            # rounded down: before the end of the run, if it was before
            if key.endswith('_epoch') and type(value) is int and value > 0:
                node[key] = int(place(value))
        if 'end_epoch' in node:
            node['begin'] = int(place(node.get('begin', 0)))
            node['end_epoch'] = max(node['end_epoch'], node['begin'] + 1)
    loop['max_epochs'] = epochs
    for key in ('val_interval', 'val_begin'):
        if key in loop:
            loop[key] = min(loop[key], epochs)
    for hook in hooks:
        if _name(hook) == 'CheckpointHook' and hook.get('by_epoch', True):
            hook.interval = min(hook.get('interval', -1), epochs)


def set_crop_size(cfg: Config, crop_size: int) -> None:
    """Change the size of the training images.

    The largest crop of the training pipelines, or, where they only resize,
    the largest size, becomes this one. All other sizes follow in proportion:
    the smaller crops of further views, what images are padded to, what
    validation, test and hooks resize and crop to, and the windows of a
    segmenter. A backbone that is made for the old size is made for the new
    one.

    Args:
        cfg (Config): Changed in place.
        crop_size (int): Side in pixels.

    Raises:
        ValueError: If the training images are neither cropped nor resized,
            or are patches, whose size is that of their seed patches.
    """
    _check_positive('crop-size', crop_size)
    loader = cfg.get('train_dataloader')
    if any(_name(n) == 'RandomDeformation' for n in _dicts(loader)):
        raise ValueError(
            f'--crop-size {crop_size}: {cfg.filename} trains on patches, '
            'whose size is that of the seed patches. Sample seed patches of '
            'this size, and set patch_size of RandomDeformation and of '
            'model.data_preprocessor, and model.backbone.input_size.'
        )
    training = list(_sized_transforms(loader))
    old = training_size(cfg)
    if old is None:
        raise ValueError(
            f'--crop-size {crop_size}: no transform of train_dataloader in '
            f'{cfg.filename} crops or resizes.'
        )
    # hooks may have images prepared, too
    others = (
        *('val_dataloader', 'val_cfg', 'test_dataloader', 'test_cfg'),
        'custom_hooks',
    )
    transforms = [
        *training,
        *(t for part in others for t in _sized_transforms(cfg.get(part))),
        *_sized_parts(cfg),
    ]
    # all are read before one is written: parts of a config made in Python may
    # share a transform
    sizes = [
        [
            max(1, round(side * crop_size / old)) if side > 0 else side
            for side in _sides(node[key])
        ]
        for node, key in transforms
    ]
    for (node, key), sides in zip(transforms, sizes, strict=True):
        node[key] = sides[0] if isinstance(node[key], int) else tuple(sides)
    for model in _dicts(cfg.get('model')):
        backbone = model.get('backbone')
        if not isinstance(backbone, dict):
            continue
        parameters = _parameters(backbone, MODELS, cfg)
        for key in {'img_size', 'input_size'} & parameters.keys():
            if backbone.get(key, parameters[key].default) == old:
                backbone[key] = crop_size


def training_size(cfg: Config) -> int | None:
    """Find the size of the training images.

    Args:
        cfg (Config): Of a run.

    Returns:
        int | None: Side in pixels of the largest crop, or, where training
        images are only resized, of the largest; None if they are neither.
    """
    training = list(_sized_transforms(cfg.get('train_dataloader')))
    crops = [t for t in training if 'Crop' in _name(t[0])] or training
    sides = [max(_sides(node[key])) for node, key in crops]
    return max(sides, default=None)


def set_data(cfg: Config, data: str | Path) -> None:
    """Change the folder of the training images.

    Args:
        cfg (Config): Changed in place: the ``data_root`` of each dataset in
            ``train_dataloader``, inside of wrappers.
        data (str | Path): The folder.

    Raises:
        ValueError: If a dataset has no such argument.
    """
    loader = cfg.get('train_dataloader') or {}
    if 'dataset' not in loader:
        raise ValueError(
            f'--data {data}: {cfg.filename} has no train_dataloader.dataset.'
        )
    datasets = dict(_datasets(loader['dataset'], 'train_dataloader.dataset'))
    without = [
        f'{key} ({_name(node)})'
        for key, node in datasets.items()
        if 'data_root' not in {*node, *_parameters(node, DATASETS, cfg)}
    ]
    if without:
        raise ValueError(
            f'--data {data}: these datasets of {cfg.filename} take no '
            f'data_root: {", ".join(without)}.'
        )
    for node in datasets.values():
        node['data_root'] = str(data)


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f'--{name} {value}: must be positive.')


def _dicts(node: Any) -> Iterator[dict[str, Any]]:
    """All dicts of a part of a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _dicts(child)


def _name(node: dict[str, Any]) -> str:
    """Name of the class that a dict describes, without its scope."""
    kind = node.get('type', '')
    return kind.split('.')[-1] if isinstance(kind, str) else kind.__name__


def _parameters(
    node: dict[str, Any], registry: Registry, cfg: Config
) -> dict[str, inspect.Parameter]:
    """Arguments of the class that a dict describes; none if it is unknown."""
    kind = node.get('type')
    if isinstance(kind, str):
        scope = cfg.get('default_scope')
        full = f'{scope}.{kind}' if scope and '.' not in kind else kind
        kind = registry.get(full)
    return dict(inspect.signature(kind).parameters) if kind else {}


def _warmup(scheduler: dict[str, Any], epochs: int) -> int:
    """Length of the warm-up that a scheduler is; 0 if it is none."""
    rises = _name(scheduler).startswith(('Linear', 'Constant'))
    end = scheduler.get('end', epochs)
    return end if rises and end < epochs and not scheduler.get('begin') else 0


def _rescaling(old: int, new: int, warmup: int) -> Callable[[int], float]:
    """Map epochs of a run to those of one of another length."""
    kept = int(min(warmup, max(warmup * new / old, new / 2)))

    def place(epoch: int) -> float:
        if epoch < warmup:
            return epoch * kept / warmup
        return kept + (epoch - warmup) * (new - kept) / (old - warmup)

    return place


def _rescale_scheduler(
    scheduler: dict[str, Any], place: Callable[[int], float]
) -> None:
    begin = scheduler.get('begin', 0)
    new_begin = round(place(begin))

    def after_begin(epochs: int) -> int:
        return max(1, round(place(begin + epochs)) - new_begin)

    if 'begin' in scheduler:
        scheduler['begin'] = new_begin
    if 'end' in scheduler:
        scheduler['end'] = round(place(scheduler['end']))
    for key in ('T_max', 'total_steps', 'step_size'):
        if scheduler.get(key) is not None:
            scheduler[key] = after_begin(scheduler[key])
    if 'milestones' in scheduler:
        scheduler['milestones'] = [*map(after_begin, scheduler['milestones'])]
    if 'periods' in scheduler:
        ends = map(after_begin, accumulate(scheduler['periods']))
        scheduler['periods'] = [
            max(1, end - start) for start, end in pairwise((0, *ends))
        ]


def _sized_transforms(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Transforms that crop, resize or pad, with the key of the size."""
    for child in _dicts(node):
        if any(word in _name(child) for word in ('Crop', 'Resize', 'Pad')):
            # torchvision's have a size, and a scale that is none
            for key in ('crop_size', 'size', 'scale'):
                if child.get(key) is not None:
                    yield child, key
                    break


def _sized_parts(cfg: Config) -> Iterator[tuple[dict[str, Any], str]]:
    """What a segmenter pads crops to, and its windows, with their keys."""
    model = cfg.get('model') or {}
    for part, keys in (
        (cfg.get('data_preprocessor'), ('size',)),
        (model.get('data_preprocessor'), ('size',)),
        (model.get('test_cfg'), ('crop_size', 'stride')),
    ):
        for key in keys:
            if part and part.get(key) is not None:
                yield part, key


def _sides(size: Any) -> list[int]:
    return [size] if isinstance(size, int) else list(size)


def _datasets(
    node: dict[str, Any], key: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Datasets inside of wrappers, by their keys in the config."""
    inner = node.get('datasets')
    if inner is not None:
        parts = inner.items() if isinstance(inner, dict) else enumerate(inner)
        for name, child in parts:
            yield from _datasets(child, f'{key}.datasets.{name}')
    elif 'dataset' in node:
        yield from _datasets(node['dataset'], f'{key}.dataset')
    else:
        yield key, node
