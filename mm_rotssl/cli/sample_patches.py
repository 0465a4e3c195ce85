"""Sample the seed patches of Exemplar-CNN from images.

The images are those of a folder with all its sub-folders, or of a config
whose training set is a mm_rotssl.ExemplarDataset; number of seed patches and
size of patches are then by default those that it trains on. The file tells
image, place and scale of each seed patch; beside it two figures are drawn: a
sheet of seed patches, and what the deformations make of some.
"""

import argparse
from pathlib import Path

from .common import add_cfg_options, ends_with_error, parse_cfg_options

ENERGIES = ('band_pass', 'gradient')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
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
        choices=ENERGIES,
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
    add_cfg_options(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): See :func:`add_arguments`.
    """
    from mm_rotssl.apis import write_seed_patches

    seed_patches, *files = write_seed_patches(
        args.images,
        args.out,
        args.num_exemplars,
        args.patch_size,
        args.scales,
        args.energy,
        args.max_per_image,
        args.random_seed,
        parse_cfg_options(args.cfg_options),
    )
    scales = seed_patches.scales.tolist()
    counts = ', '.join(
        f'{scale:g}: {scales.count(scale)}'
        for scale in sorted(set(scales), reverse=True)
    )
    print(
        f'{len(seed_patches)} seed patches from {len(seed_patches.keys)} of '
        f'{seed_patches.made_by["images_looked_at"]} images, by scale {counts}'
    )
    for file in files:
        print(file)
