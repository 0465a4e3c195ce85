"""Find the nearest neighbors of training images, for SCAN.

    mm-rotssl mine-neighbors CONFIG CHECKPOINT --out neighbors.npz

By the features of any network: each image of the config's training set, or of
a folder, gets the images that are most like it. mm_rotssl.NeighborPairs reads
the file.
"""

import argparse

from .common import (
    add_cfg_options,
    add_device,
    default_device,
    ends_with_error,
    make_console,
    parse_cfg_options,
    positive,
    show_progress,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        'config',
        help='config file or the name of a shipped config; folder of a run; '
        'checkpoint beside its config; timm:NAME or torchvision:NAME',
    )
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='file of the weights, if not in CONFIG',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help="folder or list of images (default: the config's training set)",
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='FILE',
        help='ends in .npz',
    )
    parser.add_argument(
        '--k',
        type=positive,
        default=20,
        help='neighbors of an image (default: %(default)s)',
    )
    parser.add_argument(
        '--stage',
        help='number of the stage, or "embedding" (default: the embedding, '
        'if there is one, else the last stage)',
    )
    parser.add_argument(
        '--cache',
        metavar='DIR',
        help='folder that features are kept in, so that a call that was '
        'interrupted goes on (default: none)',
    )
    add_device(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Find and write.

    Args:
        args (Namespace): See :func:`add_arguments`.
    """
    from mm_rotssl import apis

    console = make_console()
    with show_progress(console) as report:
        found = apis.mine_neighbors(
            args.config,
            args.out,
            args.checkpoint,
            images=args.images,
            k=args.k,
            stage=args.stage,
            cache=args.cache,
            device=args.device or default_device(),
            cfg_options=parse_cfg_options(args.cfg_options),
            report=report,
        )
    purity = (
        ''
        if found.purity is None
        else f', {found.purity:.1f} % of them of the same class'
    )
    console.print(
        f'{args.k} neighbors of {len(found.neighbors.keys)} images by '
        f'"{found.stage}"{purity}: {args.out}',
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
