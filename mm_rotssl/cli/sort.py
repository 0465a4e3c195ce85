"""Sort images into the classes that a network found without labels.

For each image of val_dataloader of the config, or of a folder, the class and
its probability are written to classes.csv; index.html shows the classes, the
largest first, and of each the images that the network is surest of.
"""

import argparse
from pathlib import Path

from .common import (
    add_checkpoint,
    add_config,
    add_device,
    default_device,
    ends_with_error,
    parse_cfg_options,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        '--images',
        help='folder of the images, searched with all its sub-folders; '
        'they are prepared as those of val_dataloader, whose dataset they '
        'replace',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='folder of the results; by default "classes" beside the '
        'checkpoint',
    )
    parser.add_argument(
        '--max-shown',
        type=int,
        default=36,
        help='images a class on the page (default: %(default)s)',
    )
    add_device(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): See :func:`add_arguments`.
    """
    from mm_rotssl.apis import sort_images

    done = sort_images(
        args.config,
        args.checkpoint,
        args.images,
        args.out,
        args.max_shown,
        args.device or default_device(),
        parse_cfg_options(args.cfg_options),
    )
    print(f'{done.num_images} images in {done.num_classes} classes')
    print(f'table   {done.table}')
    print(f'page    {done.page}')
