"""Train a model from a config.

Options such as --epochs change all settings that depend on them. After them
--cfg-options are merged, which have precedence.
"""

import argparse
from typing import TYPE_CHECKING

from .common import (
    add_config,
    add_launcher,
    ends_with_error,
    error_message,
    parse_cfg_options,
    positive,
)

if TYPE_CHECKING:
    from mmengine.config import Config

SHORTCUTS = ('epochs', 'batch_size', 'lr', 'crop_size', 'data')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    add_config(parser)
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints (default: the one of the '
        'config, else work_dirs/NAME)',
    )
    parser.add_argument(
        '--data',
        metavar='FOLDER',
        help='the training images; those of validation stay',
    )
    parser.add_argument(
        '--epochs',
        type=positive,
        metavar='N',
        help='length of the run; learning rate schedule and intervals follow',
    )
    parser.add_argument(
        '--batch-size',
        type=positive,
        metavar='N',
        help='training images a step and process; see --auto-scale-lr',
    )
    parser.add_argument('--lr', type=float, help='learning rate')
    parser.add_argument(
        '--crop-size',
        type=positive,
        metavar='PIXELS',
        help='side of the training images; smaller views and the images of '
        'validation follow in proportion',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or, without a value, from the '
        'newest one in the work directory',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision'
    )
    parser.add_argument(
        '--no-validate',
        dest='validate',
        action='store_false',
        help='leave out validation',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from the batch size of the config '
        '(auto_scale_lr.base_batch_size) to the actual one',
    )
    add_launcher(parser)


@ends_with_error
def load_config(args: argparse.Namespace) -> 'Config':
    """Read the config and merge the command line into it.

    Args:
        args (Namespace): Of :func:`add_arguments`.

    Returns:
        Config: To be trained; processes on the CPU are connected.
    """
    from mm_rotssl.apis import prepare_cpu_processes, read_training_config

    cfg = read_training_config(
        args.config,
        parse_cfg_options(args.cfg_options),
        work_dir=args.work_dir,
        resume=args.resume,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        validate=args.validate,
        **{name: getattr(args, name) for name in SHORTCUTS},
    )
    cfg.launcher = args.launcher
    prepare_cpu_processes(cfg)
    return cfg


def run(args: argparse.Namespace) -> None:
    """Train.

    Args:
        args (Namespace): Of :func:`add_arguments`.
    """
    cfg = load_config(args)
    from mm_rotssl.apis import train_model
    from mm_rotssl.utils import InputError

    # what else goes wrong in a run may be anything, and ends with its
    # traceback
    try:
        train_model(cfg)
    except (InputError, OSError) as error:
        raise SystemExit(f'Error: {error_message(error)}') from error
