"""Measure a checkpoint with the metrics of its config.

Those of test_evaluator if the config has one, else those of validation during
training: rotation accuracy, kNN accuracy and so on.
"""

import argparse
import json

from .common import (
    add_checkpoint,
    add_config,
    add_launcher,
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
        '--work-dir',
        help='folder of the log (default: "test" beside the checkpoint)',
    )
    add_launcher(parser)


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Measure, and print the figures as JSON.

    Args:
        args (Namespace): Of :func:`add_arguments`.
    """
    from mmengine.dist import is_main_process

    from mm_rotssl import apis
    from mm_rotssl.utils import InputError

    options = parse_cfg_options(args.cfg_options)
    cfg = apis.read_config(args.config, options)
    part = apis.measured_part(cfg)
    other = 'val' if part == 'test' else 'test'
    kinds = ('dataloader', 'cfg', 'evaluator')
    for key in options:
        if key.partition('.')[0] in [f'{other}_{kind}' for kind in kinds]:
            raise InputError(
                f'--cfg-options {key} changes nothing here: this config is '
                f'measured by {part}_dataloader, {part}_cfg and '
                f'{part}_evaluator. Say {part}{key.removeprefix(other)}.'
            )
    cfg.launcher = args.launcher
    apis.prepare_cpu_processes(cfg)
    metrics = apis.measure_checkpoint(cfg, args.checkpoint, args.work_dir)
    if is_main_process():
        print(json.dumps(metrics, indent=1))
