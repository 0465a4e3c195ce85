"""Measure a checkpoint with the metrics of its config.

Those of test_evaluator if the config has a test_dataloader, else those of
validation during training: rotation accuracy, kNN accuracy and so on.
"""

import argparse
import json
import os
from pathlib import Path

from mmengine.config import DictAction
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mm_rotssl.apis import prepare_cpu_processes, read_config
from mm_rotssl.engine.hooks.checkpoint_check_hook import check_state_dict
from mm_rotssl.utils import read_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config the checkpoint was made with')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir',
        help='folder of the log; by default "test" beside the checkpoint',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='replace settings of the config: key=value, with dots for '
        'nested keys',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if not (cfg.get('test_dataloader') or cfg.get('val_dataloader')):
        raise SystemExit(
            f'{args.config} names no images to test on: add '
            'val_dataloader, val_cfg and val_evaluator.'
        )
    try:
        checkpoint = read_checkpoint(args.checkpoint)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f'Error: {error}') from error
    cfg.work_dir = args.work_dir or str(Path(args.checkpoint).parent / 'test')
    cfg.launcher = args.launcher
    if args.launcher != 'none' and get_device() == 'cpu':
        prepare_cpu_processes(cfg)
    # the weights are those of the argument
    cfg.resume, cfg.load_from = False, None
    runner = Runner.from_cfg(cfg)
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    weights = checkpoint.get('state_dict', checkpoint)
    try:
        check_state_dict(model, weights, f'"{args.checkpoint}"')
    except ValueError as error:
        raise SystemExit(f'Error: {error}') from error
    model.load_state_dict(weights)
    metrics = runner.test() if cfg.get('test_dataloader') else runner.val()
    if is_main_process():
        print(json.dumps(metrics, indent=1))


if __name__ == '__main__':
    main()
