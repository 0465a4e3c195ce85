"""Which images of a dataset have no clear orientation."""

import copy
import json
import logging
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.dist import (
    barrier,
    broadcast,
    collect_results,
    init_dist,
    is_main_process,
)
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from rich.progress import track

from mm_rotssl.datasets import RotationNoise, image_keys
from mm_rotssl.models import RotNet
from mm_rotssl.ops import noise_weights, upright_index
from mm_rotssl.registry import DATASETS, MODELS
from mm_rotssl.utils import (
    InputError,
    algorithm_settings,
    fingerprint,
    newest_checkpoint,
    save_figure,
    write_file,
)
from mm_rotssl.visualization import plot_orientation, shown_image

from .config import prepare_cpu_processes, read_config

# images drawn in each of the two groups
SHOWN = 24
# more sub-folders than these are not told apart
MAX_FOLDERS = 20


class NoiseEstimate(NamedTuple):
    """What :func:`estimate_rotation_noise` has found and written.

    Attributes:
        noise (RotationNoise): The probabilities of being un-rotated.
        summary (str): What they say about the dataset, a few lines.
        file (Path): Holds them.
        figure (Path): The images with the least and the most clear
            orientation.
    """

    noise: RotationNoise
    summary: str
    file: Path
    figure: Path


def estimate_rotation_noise(
    config: str | Path,
    work_dir: str | Path | None = None,
    folds: int = 5,
    seed: int = 0,
    launcher: str = 'none',
    cfg_options: dict | None = None,
) -> NoiseEstimate | None:
    """Estimate which images of a dataset have no clear orientation.

    A rotation network is trained on all but one of several folds of its
    training set, and says of the images of the remaining one, in each
    rotation, how probable it is that they are un-rotated; so for every fold.

    Folds that are done are not done again and an unfinished one is resumed:
    call it again with the same arguments. The two newest checkpoints of a
    fold are kept, and what was cut off in writing is passed over or done
    again.

    Args:
        config (str | Path): Of a :class:`~mm_rotssl.models.RotNet`, see
            :func:`read_config`.
        work_dir (str | Path, optional): Folder of the folds and the results.
            Defaults to None, ``work_dirs/rotation_noise`` with the name of
            the config.
        folds (int): Number of folds, at least 2. Defaults to 5.
        seed (int): Of the folds and of training. Defaults to 0.
        launcher (str): How the processes were started: 'none', 'pytorch',
            'slurm' or 'mpi'. Defaults to 'none'.
        cfg_options (dict, optional): Replace settings of the config. Defaults
            to None.

    Returns:
        NoiseEstimate | None: The result; on all processes but the first,
        None.

    Raises:
        ValueError: If the config is of another network or can't be divided
            into folds, there are fewer images than folds, or ``work_dir``
            holds another estimation, or one that nothing is known of.
    """
    if folds < 2:
        raise ValueError(f'folds={folds} must be at least 2.')
    cfg = read_config(config, cfg_options)
    if work_dir is None:
        work_dir = Path('work_dirs/rotation_noise') / Path(cfg.filename).stem
    work_dir = Path(work_dir)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    _check_network(cfg)
    cfg.launcher = launcher
    if launcher != 'none':
        # before the first runner would, for the checks that come before it
        if get_device() == 'cpu':
            prepare_cpu_processes(cfg)
        else:
            init_dist(launcher, **cfg.env_cfg.dist_cfg)
    dataset = _build_plain_dataset(cfg)
    keys = image_keys(dataset)
    if len(keys) < folds:
        raise ValueError(f'folds={folds}: there are only {len(keys)} images.')
    _check_work_dir(cfg, keys, folds, seed, work_dir)
    for fold in range(folds):
        if is_main_process():
            print(f'fold {fold + 1} of {folds}')
        _estimate_fold(cfg, fold, folds, seed, work_dir)
    if not is_main_process():
        return None
    made_by = dict(
        config=str(config),
        cfg_options=cfg_options or {},
        folds=folds,
        seed=seed,
    )
    noise = _merge(keys, folds, work_dir, made_by)
    file = work_dir / 'rotation_noise.npz'
    noise.save(file)
    figure = _draw(
        noise,
        dataset,
        algorithm_settings(cfg).get('data_preprocessor'),
        work_dir / 'orientation.png',
    )
    return NoiseEstimate(noise, _summary(noise), file, figure)


def _plain_pipeline(cfg: Config) -> list[dict]:
    """The pipeline without augmentation, by which images are judged."""
    pipeline = ((cfg.get('val_dataloader') or {}).get('dataset') or {}).get(
        'pipeline'
    ) or cfg.get('test_pipeline')
    if not pipeline:
        raise ValueError(
            'The config says nowhere how to prepare an image without '
            'random crops: add test_pipeline=[...], for instance loading, '
            'ResizeEdge, CenterCrop and PackInputs.'
        )
    return pipeline


def _plain_dataset(cfg: Config) -> dict:
    """The training set, its images prepared without augmentation."""
    settings = copy.deepcopy(cfg.train_dataloader.dataset)
    settings['pipeline'] = _plain_pipeline(cfg)
    return settings


def _build_plain_dataset(cfg: Config) -> BaseDataset:
    """The whole of it."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if not isinstance(dataset, BaseDataset):
        raise ValueError(
            f'train_dataloader.dataset is a {type(dataset).__name__}. Each '
            'image is judged once: give the dataset inside it.'
        )
    dataset = DATASETS.build(_plain_dataset(cfg))
    if 'sample_idx' not in dataset[0]['data_samples']:
        raise ValueError(
            'The pipeline of validation drops the sample_idx of an image; '
            'it has to be among the meta_keys of PackInputs.'
        )
    return dataset


def _check_network(cfg: Config) -> None:
    """Refuse what can't tell rotations, before hours of training."""
    model = MODELS.build(cfg.model)
    if not isinstance(model, RotNet):
        raise ValueError(
            f'model.type={cfg.model.type} predicts no rotations. Take a '
            'config of configs/rotnet.'
        )
    upright_index(model.rotations)
    if 'max_epochs' not in cfg.train_cfg:
        raise ValueError(
            'train_cfg has no max_epochs: folds are saved and resumed by '
            'epochs.'
        )


def _fold_settings(
    dataset: dict, fold: int, folds: int, seed: int, held_out: bool
) -> dict:
    """A part of a dataset, as mmpretrain divides it."""
    return dict(
        type='mmpretrain.KFoldDataset',
        dataset=dataset,
        fold=fold,
        num_splits=folds,
        test_mode=held_out,
        seed=seed,
    )


def _fold_config(
    cfg: Config, fold: int, folds: int, seed: int, work_dir: Path
) -> Config:
    """The config of the training of one fold."""
    cfg = copy.deepcopy(cfg)
    cfg.train_dataloader.dataset = _fold_settings(
        cfg.train_dataloader.dataset, fold, folds, seed, held_out=False
    )
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    # what was done when the run is stopped is not to be lost
    hooks = cfg.setdefault('default_hooks', {})
    hook = (hooks.get('checkpoint') or {}).get('type', 'CheckpointHook')
    # one is whole while the other is written
    hooks['checkpoint'] = dict(type=hook, interval=1, max_keep_ckpts=2)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    cfg.work_dir = str(work_dir / f'fold{fold}')
    try:
        newest = newest_checkpoint(cfg.work_dir)
    except InputError as error:
        # nothing is lost but this fold's epochs
        print_log(f'{error} The fold begins anew.', 'current', logging.WARNING)
        newest = None
    cfg.resume = newest is not None
    if newest is not None:
        cfg.load_from = newest
    # two folds that are started in one second must not share their logs
    cfg.experiment_name = f'fold{fold}_{time.time_ns()}'
    return cfg


def _is_done(path: Path) -> bool:
    """Whether a fold's file is there and whole."""
    if not path.is_file():
        return False
    try:
        RotationNoise.load(path)
    except ValueError as error:
        print_log(
            f'{error} The fold is estimated again.', 'current', logging.WARNING
        )
        return False
    return True


def _predict(
    model: Any, dataset: Any, cfg: Config
) -> dict[int, np.ndarray] | None:
    """Classify the copies of each image.

    Returns:
        Index of the image to its scores (R, R), without those that could
        not be read, on the main process; None on the others.
    """
    loader = Runner.build_dataloader(
        dict(
            batch_size=cfg.train_dataloader.batch_size,
            num_workers=cfg.train_dataloader.num_workers,
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        seed=0,
    )
    rows = []
    model.eval()
    batches = track(loader, 'held-out images', disable=not is_main_process())
    for batch in batches:
        with torch.no_grad():
            samples = model.val_step(batch)
        for sample in samples:
            scores = sample.rotation_scores.double().cpu().numpy()
            rows.append((sample.sample_idx, scores))
    rows = collect_results(rows, len(dataset), 'cpu')
    # an image that stands in for an unreadable one comes twice
    return None if rows is None else dict(rows)


def _fold_file(work_dir: Path, fold: int) -> Path:
    return work_dir / f'fold{fold}/rotation_noise.npz'


def _estimate_fold(
    cfg: Config, fold: int, folds: int, seed: int, work_dir: Path
) -> None:
    """Train without a fold and write what is predicted for it."""
    path = _fold_file(work_dir, fold)
    # on all processes before one of them writes it
    done = _is_done(path)
    barrier()
    if done:
        return
    runner = Runner.from_cfg(_fold_config(cfg, fold, folds, seed, work_dir))
    runner.train()
    held_out = DATASETS.build(
        _fold_settings(_plain_dataset(cfg), fold, folds, seed, held_out=True)
    )
    model = getattr(runner.model, 'module', runner.model)
    # each process has its own statistics of batch normalization; those of
    # the first are in the checkpoint
    for buffer in model.buffers():
        broadcast(buffer)
    found = _predict(model, held_out, cfg)
    if found is not None:
        upright = upright_index(model.rotations)
        truth = np.arange(len(model.rotations))
        nothing = np.zeros((len(truth), len(truth)))
        keys = image_keys(held_out)
        # in memory, two images may be the same
        probabilities = {
            key: found.get(i, nothing)[:, upright]
            for i, key in enumerate(keys)
        }
        hits = [scores.argmax(1) == truth for scores in found.values()]
        RotationNoise(
            list(probabilities),
            np.stack(list(probabilities.values())),
            model.rotations,
            dict(
                rotation_accuracy=100 * float(np.mean(hits)),
                not_read=[key for i, key in enumerate(keys) if i not in found],
            ),
        ).save(path)
    barrier()


def _check_work_dir(
    cfg: Config, keys: list[str], folds: int, seed: int, work_dir: Path
) -> None:
    """Refuse a folder with folds of another estimation."""
    settings = cfg._cfg_dict.to_dict()
    description = {
        'images': f'{len(keys)}, {fingerprint(keys)}',
        'folds': folds,
        'seed': seed,
        **{
            key: settings.get(key)
            for key in (
                'model',
                'train_dataloader',
                'optim_wrapper',
                'param_scheduler',
                'train_cfg',
                'load_from',
            )
        },
        'pipeline of validation': _plain_pipeline(cfg),
    }
    description = json.loads(json.dumps(description, default=str))
    path = work_dir / 'estimation.json'
    try:
        before = json.loads(path.read_bytes()) if path.is_file() else None
    except ValueError as error:
        if any(work_dir.glob('fold*/*')):
            raise ValueError(
                f'"{path}" is damaged, so that nothing tells what the folds '
                f'in "{work_dir}" were made with. Name another --work-dir, '
                'or delete it.'
            ) from error
        before = None
    if before is not None:
        other = [
            key for key in description if before.get(key) != description[key]
        ]
        if other:
            raise ValueError(
                f'"{work_dir}" holds an estimation with another '
                f'{", ".join(other)}. Name another --work-dir, or delete it.'
            )
    elif is_main_process():
        write_file(path, (json.dumps(description, indent=1) + '\n').encode())


def _merge(
    keys: list[str], folds: int, work_dir: Path, made_by: dict[str, Any]
) -> RotationNoise:
    """Put the folds together, in the order of the dataset."""
    parts = [
        RotationNoise.load(_fold_file(work_dir, fold)) for fold in range(folds)
    ]
    found = {
        key: row
        for part in parts
        for key, row in zip(part.keys, part.probabilities, strict=True)
    }
    distinct = list(dict.fromkeys(keys))
    return RotationNoise(
        distinct,
        np.stack([found[key] for key in distinct]),
        parts[0].rotations,
        dict(
            made_by,
            rotation_accuracy=[
                part.made_by['rotation_accuracy'] for part in parts
            ],
            not_read=[
                key for part in parts for key in part.made_by['not_read']
            ],
        ),
    )


def _readable(noise: RotationNoise) -> RotationNoise:
    """Without the images that could not be read."""
    bad = set(noise.made_by['not_read'])
    kept = [i for i, key in enumerate(noise.keys) if key not in bad]
    return RotationNoise(
        [noise.keys[i] for i in kept],
        noise.probabilities[kept],
        noise.rotations,
        noise.made_by,
    )


def _summary(noise: RotationNoise) -> str:
    """What the probabilities say about the dataset."""
    bad = noise.made_by['not_read']
    noise = _readable(noise)
    count, num_rotations = noise.probabilities.shape
    chance = 100 / num_rotations
    accuracy = noise.made_by['rotation_accuracy']
    unclear = noise.margins() <= 0
    weights = np.delete(
        noise_weights(
            torch.from_numpy(noise.probabilities), noise.rotations
        ).numpy(),
        upright_index(noise.rotations),
        axis=1,
    )
    lines = [
        f'{count} images, {len(accuracy)} folds. Rotation accuracy on '
        f'images not trained on: {np.mean(accuracy):.1f} % '
        f'({", ".join(f"{value:.1f}" for value in accuracy)}; chance '
        f'{chance:.0f}).',
        f'{100 * unclear.mean():.1f} % have no clear orientation: a rotated '
        'copy looks at least as un-rotated as the image itself (guessing: '
        f'{100 - chance:.0f}).',
    ]
    folders = np.array([key.partition('/')[0] for key in noise.keys])
    names = np.unique(folders)
    if 1 < len(names) <= MAX_FOLDERS:
        share = {
            str(name): 100 * unclear[folders == name].mean() for name in names
        }
        lines.append(
            '  by folder: '
            + ', '.join(
                f'{name} {share[name]:.0f}'
                for name in sorted(share, key=share.__getitem__)
            )
        )
    lines.append(
        'Weights of the rotated copies, 1 - p^2: mean '
        f'{weights.mean():.3f}; below 0.5: {100 * (weights < 0.5).mean():.1f} '
        f'%; below 0.1: {100 * (weights < 0.1).mean():.1f} %.'
    )
    if bad:
        lines.append(
            f'{len(bad)} images could not be read and are left out; they '
            f'have the weight 1: {", ".join(bad[:5])}'
        )
    return '\n'.join(lines)


def _draw(
    noise: RotationNoise,
    dataset: BaseDataset,
    data_preprocessor: dict | None,
    path: Path,
) -> Path:
    """The images with the least and the most clear orientation."""
    noise = _readable(noise)
    margins = noise.margins()
    places = {key: i for i, key in enumerate(image_keys(dataset))}
    order = np.argsort(margins, kind='stable')

    def group(indices: np.ndarray) -> list:
        return [
            (
                shown_image(dataset, places[noise.keys[i]], data_preprocessor),
                noise.probabilities[i],
            )
            for i in indices
        ]

    unclear = 100 * (margins <= 0).mean()
    groups = {
        'Most ambiguous: another orientation looks more un-rotated than the '
        'one they have': group(order[:SHOWN]),
        'Least ambiguous': group(order[::-1][:SHOWN]),
    }
    figure = plot_orientation(
        groups,
        noise.rotations,
        f'Orientation of {len(margins)} images: {unclear:.1f} % have '
        'no clear one',
    )
    return save_figure(figure, path)
