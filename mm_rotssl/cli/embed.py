"""Write the features of images to a file, for other programs.

    mm-rotssl embed CONFIG CHECKPOINT --images FOLDER --out features.parquet

A vector an image, with its path, and its label where there is one: as .npz,
.csv or .parquet.
"""

import argparse

from .common import (
    add_cfg_options,
    add_device,
    default_device,
    ends_with_error,
    make_console,
    parse_cfg_options,
    show_progress,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes."""
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
        help="folder or list of images (default: the config's)",
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='FILE',
        help='ends in .npz, .csv or .parquet',
    )
    parser.add_argument(
        '--stage',
        help='number of the stage, or "embedding" (default: the last stage)',
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
    """Extract and write."""
    from mm_rotssl import apis

    console = make_console()
    with show_progress(console) as report:
        found = apis.embed(
            args.config,
            args.out,
            args.checkpoint,
            images=args.images,
            stage=args.stage,
            cache=args.cache,
            device=args.device or default_device(),
            cfg_options=parse_cfg_options(args.cfg_options),
            report=report,
        )
    console.print(
        f'{found.images} images, {found.channels} numbers each of '
        f'"{found.stage}" (of {", ".join(found.stages)}): {args.out}',
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
