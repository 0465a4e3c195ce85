"""Sample the seed patches of Exemplar-CNN from images.

The images are those of a folder with all its sub-folders, or of a config
whose training set is a mm_rotssl.ExemplarDataset; number of seed patches and
size of patches are then by default those that it trains on. The file tells
image, place and scale of each seed; beside it two figures are drawn: a sheet
of seed patches, and what the deformations make of some.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope

from mm_rotssl.apis import algorithm_settings, read_config
from mm_rotssl.datasets import (
    ExemplarDataset,
    SeedPatches,
    sample_seed_patches,
)
from mm_rotssl.datasets.exemplar.seed_patch_sampling import ENERGIES
from mm_rotssl.registry import DATASETS
from mm_rotssl.utils import save_figure
from mm_rotssl.visualization import plot_patches

SHOWN, COLUMNS = 144, 18
DEFORMED = 10


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'images', help='folder of the images, or a config (.py)'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='the file, .npz; by default what the config names as seed '
        'patches, or seed_patches.npz here',
    )
    parser.add_argument(
        '--num-exemplars',
        type=int,
        help="number of seed patches (default: the config's "
        'model.head.num_exemplars, or 8000)',
    )
    parser.add_argument(
        '--patch-size',
        type=int,
        help="side of the patches in pixels (default: that of the config's "
        'RandomDeformation, or 32)',
    )
    parser.add_argument(
        '--scales',
        type=float,
        nargs='+',
        help='by how much images are scaled before patches are cut: these '
        'cover patch size / scale pixels (default: 1 0.8 0.64 0.512)',
    )
    parser.add_argument(
        '--energy',
        choices=list(ENERGIES),
        help="what patches are drawn in proportion to: the authors' code's "
        'band-pass energy, or the squared gradient of the paper (default: '
        'band_pass)',
    )
    parser.add_argument(
        '--max-per-image',
        type=int,
        help='most seed patches an image (default: 1)',
    )
    parser.add_argument(
        '--seed',
        dest='random_seed',
        type=int,
        help='the same gives the same patches (default: 0)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='replace settings of the config: key=value, with dots for '
        'nested keys',
    )
    args = parser.parse_args()
    if args.out is not None and args.out.suffix != '.npz':
        parser.error(f'--out {args.out}: the name must end in .npz')
    if args.cfg_options and not args.images.endswith('.py'):
        parser.error('--cfg-options need a config')
    return args


def folder_settings(folder: str) -> dict:
    return dict(
        type='mm_rotssl.ImageFolder',
        data_root=folder,
        pipeline=[dict(type='mm_rotssl.LoadIntactImage')],
    )


def config_settings(cfg: Config) -> Config:
    """The training set of a config."""
    settings = cfg.train_dataloader.dataset
    if settings.get('type') != 'mm_rotssl.ExemplarDataset':
        raise ValueError(
            f'train_dataloader.dataset is a {settings.get("type")}; take a '
            'config of configs/exemplar_cnn, or give the folder of the '
            'images.'
        )
    return settings


def config_deformation(training_set: dict) -> dict:
    """The deformation of a training set; the usual one if it has none."""
    name = 'mm_rotssl.RandomDeformation'
    for transform in training_set['pipeline']:
        if transform['type'] == name:
            return dict(transform)
    return dict(type=name)


def settings_of(args: argparse.Namespace, cfg: Config | None) -> dict:
    """What to sample: the command line's, the config's, or the usual."""
    settings: dict = dict(num_exemplars=8000)
    if cfg is not None:
        head = cfg.model.get('head') or {}
        settings['num_exemplars'] = head.get('num_exemplars', 8000)
        training_set = config_settings(cfg)
        deformation = config_deformation(training_set)
        if 'patch_size' in deformation:
            settings['patch_size'] = deformation['patch_size']
        if isinstance(training_set.seed_patches, dict):
            settings.update(training_set.seed_patches)
    given = {
        name: getattr(args, name)
        for name in (
            'num_exemplars',
            'patch_size',
            'scales',
            'energy',
            'max_per_image',
            'random_seed',
        )
        if getattr(args, name) is not None
    }
    return {**settings, **given}


def draw(
    dataset: BaseDataset,
    seed_patches: SeedPatches,
    deformation: dict,
    path: Path,
) -> list[Path]:
    """The first seed patches, which are in random order, and deformations."""
    bgr = deformation['bgr']
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
        found = [entries[i]['img'] for i in range(len(entries))]
        return [img[..., ::-1] for img in found] if bgr else found

    plain = patches([], 1)
    each = COLUMNS - 1
    deformed = patches([deformation], each)
    return [
        save_figure(
            plot_patches(
                [plain[i : i + COLUMNS] for i in range(0, count, COLUMNS)],
                f'{count} of {len(seed_patches)} seed patches',
                f'{seed_patches.patch_size} pixels at scales '
                + ', '.join(
                    f'{s:g}' for s in sorted(set(seed_patches.scales))
                ),
            ),
            path.with_name(f'{path.stem}_sheet.png'),
        ),
        save_figure(
            plot_patches(
                [
                    [plain[i], *deformed[each * i : each * (i + 1)]]
                    for i in range(min(DEFORMED, count))
                ],
                'Deformations',
                'First in each row: the seed. A row is a class.',
            ),
            path.with_name(f'{path.stem}_deformations.png'),
        ),
    ]


def sample(args: argparse.Namespace) -> None:
    cfg = None
    deformation = dict(type='mm_rotssl.RandomDeformation', bgr=True)
    images = folder_settings(args.images)
    if args.images.endswith('.py'):
        cfg = read_config(args.images, args.cfg_options)
        training_set = config_settings(cfg)
        images = training_set.dataset
        wanted = training_set.seed_patches
        if args.out is None and wanted and isinstance(wanted, str):
            args.out = Path(wanted)
        preprocessor = algorithm_settings(cfg).get('data_preprocessor', {})
        deformation = config_deformation(training_set)
        deformation['bgr'] = bool(
            preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb')
        )
    init_default_scope((cfg or {}).get('default_scope', 'mmpretrain'))
    path = args.out or Path('seed_patches.npz')
    dataset = DATASETS.build(images)
    seed_patches = sample_seed_patches(
        dataset, **settings_of(args, cfg), progress=True
    )
    seed_patches.save(path)
    deformation.update(patch_size=seed_patches.patch_size, on_device=False)
    drawn = draw(dataset, seed_patches, deformation, path)
    counts = ', '.join(
        f'{scale:g}: {(seed_patches.scales == scale).sum()}'
        for scale in np.unique(seed_patches.scales)[::-1]
    )
    print(
        f'{len(seed_patches)} seed patches from {len(seed_patches.keys)} of '
        f'{seed_patches.made_by["images_looked_at"]} images, by scale {counts}'
    )
    print('\n'.join(map(str, [path, *drawn])))


def main() -> None:
    try:
        sample(parse_args())
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error


if __name__ == '__main__':
    main()
