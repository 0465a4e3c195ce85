"""List the shipped configs, each with its first sentence.

Any command takes a name of the list in place of a file.
"""

import argparse

from .common import ends_with_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        'filter', nargs='?', default='', help='part of the names'
    )


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Print names and sentences.

    Args:
        args (Namespace): Of :func:`add_arguments`.

    Raises:
        ValueError: If no name fits.
    """
    from mm_rotssl.utils import config_summary, list_configs

    configs = list_configs(args.filter)
    if not configs:
        raise ValueError(f'No shipped config has "{args.filter}" in its name.')
    for name, paths in configs.items():
        for path in paths:
            print(f'{name}\n    {config_summary(path)}')
