"""Convert a RotationPred of mmselfsup to a RotNet."""

import argparse
from pathlib import Path

from .common import ends_with_error

VERSIONS = ('0.x', '1.x')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument('source', type=Path, help='file of mmselfsup')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument(
        '--config',
        action='store_true',
        help='the files are configs (of mmselfsup 1.x), not checkpoints',
    )
    parser.add_argument(
        '--from-version',
        choices=VERSIONS,
        help='the mmselfsup that made the checkpoint, if it does not say',
    )


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): See :func:`add_arguments`.
    """
    from mm_rotssl.converters.mmselfsup import (
        convert_checkpoint_file,
        convert_config_file,
    )

    if args.config:
        for remark in convert_config_file(args.source, args.target):
            print(remark)
    else:
        convert_checkpoint_file(args.source, args.target, args.from_version)
    print(f'Written: {args.target}')
