"""Seed patches of Exemplar-CNN, written and drawn."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope

from mm_rotssl.datasets import (
    ExemplarDataset,
    SeedPatches,
    sample_seed_patches,
)
from mm_rotssl.registry import DATASETS
from mm_rotssl.utils import algorithm_settings, save_figure
from mm_rotssl.visualization import plot_patches, to_rgb

from .config import read_config

# seed patches on the sheet, columns, and rows of deformations
SHOWN, COLUMNS = 144, 18
DEFORMED = 10


class WrittenSeedPatches(NamedTuple):
    """What :func:`write_seed_patches` has written.

    Attributes:
        seed_patches (SeedPatches): What was sampled.
        file (Path): Holds them.
        sheet (Path): Shows them.
        deformations (Path): Shows what the deformations make of some.
    """

    seed_patches: SeedPatches
    file: Path
    sheet: Path
    deformations: Path


def write_seed_patches(
    images: str | Path,
    out: str | Path | None = None,
    num_exemplars: int | None = None,
    patch_size: int | None = None,
    scales: Sequence[float] | None = None,
    energy: str | None = None,
    max_per_image: int | None = None,
    random_seed: int | None = None,
    cfg_options: dict | None = None,
) -> WrittenSeedPatches:
    """Sample the seed patches of Exemplar-CNN, write and draw them.

    What is None is as the config trains with, or else the default of
    :func:`mm_rotssl.datasets.sample_seed_patches`.

    Args:
        images (str | Path): Folder of the images with all its sub-folders, or
            a config (``.py``) whose training set is an
            :class:`~mm_rotssl.datasets.ExemplarDataset`.
        out (str | Path, optional): The file, ``.npz``; the figures lie beside
            it. Defaults to None: what the config names as seed patches, or
            ``seed_patches.npz``.
        num_exemplars (int, optional): How many. Defaults to None, without a
            config 8000.
        patch_size (int, optional): Their side in pixels. Defaults to None.
        scales (Sequence[float], optional): By how much images are scaled
            before patches are cut. Defaults to None.
        energy (str, optional): 'band_pass' or 'gradient'. Defaults to None.
        max_per_image (int, optional): Most seed patches an image. Defaults to
            None.
        random_seed (int, optional): The same gives the same patches. Defaults
            to None.
        cfg_options (dict, optional): Replace settings of the config. Defaults
            to None.

    Returns:
        WrittenSeedPatches: The seed patches, and the files.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If ``out`` has another suffix, the config has another
            training set, a setting makes no sense, or there are fewer places
            than asked for.
    """
    if out is not None and Path(out).suffix != '.npz':
        raise ValueError(f'--out {out}: the name must end in .npz')
    settings: dict = dict(num_exemplars=8000)
    # what is read from files is BGR
    deformation = dict(type='mm_rotssl.RandomDeformation', bgr=True)
    scope, preprocessor = 'mmpretrain', dict(bgr_to_rgb=True)
    if str(images).endswith('.py'):
        cfg = read_config(images, cfg_options)
        scope = cfg.get('default_scope', scope)
        training_set = _training_set(cfg)
        source = training_set.dataset
        named = training_set.seed_patches
        if out is None and named and isinstance(named, str):
            out = named
        settings.update(_config_settings(cfg))
        deformation = _config_deformation(training_set)
        preprocessor = algorithm_settings(cfg).get('data_preprocessor', {})
        deformation['bgr'] = bool(
            preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb')
        )
    elif cfg_options:
        raise ValueError(
            '--cfg-options need a config, and '
            f'"{images}" is no file that ends in .py.'
        )
    else:
        source = dict(
            type='mm_rotssl.ImageFolder',
            data_root=str(images),
            pipeline=[dict(type='mm_rotssl.LoadIntactImage')],
        )
    given = dict(
        num_exemplars=num_exemplars,
        patch_size=patch_size,
        scales=scales,
        energy=energy,
        max_per_image=max_per_image,
        random_seed=random_seed,
    )
    settings.update({k: v for k, v in given.items() if v is not None})
    init_default_scope(scope)
    dataset = DATASETS.build(source)
    seed_patches = sample_seed_patches(dataset, **settings, progress=True)
    path = Path(out or 'seed_patches.npz')
    seed_patches.save(path)
    deformation.update(patch_size=seed_patches.patch_size, on_device=False)
    return WrittenSeedPatches(
        seed_patches,
        path,
        *_draw(dataset, seed_patches, deformation, preprocessor, path),
    )


def _training_set(cfg: Config) -> Config:
    settings = cfg.train_dataloader.dataset
    if settings.get('type') != 'mm_rotssl.ExemplarDataset':
        raise ValueError(
            f'train_dataloader.dataset is a {settings.get("type")}; take a '
            'config of configs/exemplar_cnn, or give the folder of the '
            'images.'
        )
    return settings


def _config_deformation(training_set: dict) -> dict:
    """The deformation of a training set; the usual one if it has none."""
    name = 'mm_rotssl.RandomDeformation'
    for transform in training_set['pipeline']:
        if transform['type'] == name:
            return dict(transform)
    return dict(type=name)


def _config_settings(cfg: Config) -> dict:
    """What a config says of its seed patches, in one place or another."""
    settings = {}
    head = cfg.model.get('head') or {}
    if 'num_exemplars' in head:
        settings['num_exemplars'] = head['num_exemplars']
    training_set = cfg.train_dataloader.dataset
    deformation = _config_deformation(training_set)
    if 'patch_size' in deformation:
        settings['patch_size'] = deformation['patch_size']
    if isinstance(training_set.seed_patches, dict):
        settings.update(training_set.seed_patches)
    return settings


def _draw(
    dataset: BaseDataset,
    seed_patches: SeedPatches,
    deformation: dict,
    preprocessor: dict,
    path: Path,
) -> tuple[Path, Path]:
    """The first seed patches, which are in random order, and deformations."""
    count = min(SHOWN, len(seed_patches))
    used, places = np.unique(seed_patches.images[:count], return_inverse=True)
    shown = dataclasses.replace(
        seed_patches,
        keys=[seed_patches.keys[i] for i in used],
        sizes=seed_patches.sizes[used],
        images=places,
        centers=seed_patches.centers[:count],
        scales=seed_patches.scales[:count],
    )

    def patches(pipeline: list, number: int) -> list[np.ndarray]:
        entries = ExemplarDataset(
            dataset,
            shown,
            pipeline,
            num_deformations=number,
            fixed_deformations=True,
        )
        return [
            to_rgb(entries[i]['img'], preprocessor)
            for i in range(len(entries))
        ]

    plain = patches([], 1)
    each = COLUMNS - 1
    deformed = patches([deformation], each)
    sheet = save_figure(
        plot_patches(
            [plain[i : i + COLUMNS] for i in range(0, count, COLUMNS)],
            f'{count} of {len(seed_patches)} seed patches',
            f'{seed_patches.patch_size} pixels at scales '
            + ', '.join(f'{s:g}' for s in sorted(set(seed_patches.scales))),
        ),
        path.with_name(f'{path.stem}_sheet.png'),
    )
    deformations = save_figure(
        plot_patches(
            [
                [plain[i], *deformed[each * i : each * (i + 1)]]
                for i in range(min(DEFORMED, count))
            ],
            'Deformations',
            'First in each row: the seed patch. A row is a class.',
        ),
        path.with_name(f'{path.stem}_deformations.png'),
    )
    return sheet, deformations
