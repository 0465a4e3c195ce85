"""Train a model from a config file."""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from mm_rotssl.apis import prepare_cpu_processes, read_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints; by default the one of the '
        'config, else work_dirs/<name of the config>',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or, without a value, from the '
        'newest one in the work directory',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision'
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='leave out validation'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from the batch size of the config '
        '(auto_scale_lr.base_batch_size) to the actual one',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='replace settings of the config: key=value, with dots for '
        'nested keys; lists as key="[a,b]" or key=a,b',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started',
    )
    # passed on by torch.distributed.launch
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the command line into it."""
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        if get_device() in ('cpu', 'mps'):
            raise SystemExit(
                '--amp: mixed precision needs a GPU, and there is none here. '
                'Leave --amp out.'
            )
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise SystemExit(
                f'--auto-scale-lr: {args.config} names no batch size that '
                'its learning rate is meant for; add auto_scale_lr=dict('
                'base_batch_size=...).'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        # the first start of a job that may be interrupted has nothing to
        # resume from, but perhaps weights to begin with
        newest = (
            find_latest_checkpoint(cfg.work_dir)
            if args.resume == 'auto'
            else args.resume
        )
        cfg.resume = newest is not None
        if newest is not None:
            cfg.load_from = newest
    weights = cfg.get('load_from')
    if weights and '://' not in weights and not Path(weights).is_file():
        raise SystemExit(
            f'The checkpoint "{weights}" does not exist (looked from '
            f'"{Path.cwd()}").'
        )
    return cfg


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    if args.launcher != 'none' and get_device() == 'cpu':
        prepare_cpu_processes(cfg)
    runner = (
        RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    )
    runner.train()
    # NCCL asks for it; gloo does not, and torch 2.5 may hang there
    if (
        torch.distributed.is_initialized()
        and torch.distributed.get_backend() == 'nccl'
    ):
        torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
