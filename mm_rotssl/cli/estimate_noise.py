"""Estimate which images of a dataset have no clear orientation.

A rotation network (the config, e.g. one of configs/rotnet) is trained on all
but one of several folds of its training set, and says of the images of the
remaining one, in each rotation, how probable it is that they are un-rotated;
so for every fold. The probabilities are written to a file that Rotation
Feature Decoupling weights its rotation loss with. How ambiguous the images
are is printed and drawn.

Folds that are done are not done again and an unfinished one is resumed: run
the same command again.
"""

import argparse
from pathlib import Path

from .common import (
    add_config,
    add_launcher,
    add_seed,
    ends_with_error,
    parse_cfg_options,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    add_config(parser)
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder of the folds, the file rotation_noise.npz and the '
        'figure; by default work_dirs/rotation_noise/<name of the config>',
    )
    parser.add_argument(
        '--folds', type=int, default=5, help='number of folds (default: 5)'
    )
    add_seed(parser, 'the folds and of training')
    add_launcher(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): See :func:`add_arguments`.
    """
    from mm_rotssl.apis import estimate_rotation_noise

    done = estimate_rotation_noise(
        args.config,
        args.work_dir,
        args.folds,
        args.seed,
        args.launcher,
        parse_cfg_options(args.cfg_options),
    )
    # one process tells it
    if done is not None:
        print(done.summary)
        print(f'probabilities {done.file}')
        print(f'figure        {done.figure}')
