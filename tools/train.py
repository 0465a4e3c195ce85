"""Train a model from a config file."""

import argparse
import difflib
import inspect
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


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


def check_option(cfg: Config, option: str) -> None:
    """Refuse a key that no part of the config would ever read.

    All but its last component must be there; the first may also be an
    argument of the runner.
    """
    node: Any = cfg._cfg_dict
    names = option.split('.')
    for depth, name in enumerate(names):
        known: list[str] = []
        if isinstance(node, dict):
            known = [str(key) for key in node]
            if depth == 0:
                known += list(inspect.signature(Runner).parameters)
            found = name in known
            child = node.get(name)
        elif isinstance(node, (list, tuple)) and name.isdecimal():
            known = [str(i) for i in range(len(node))]
            found = name in known
            child = node[int(name)] if found else None
        else:
            return
        if not found and (depth == 0 or depth < len(names) - 1):
            near = difflib.get_close_matches(name, known, 1)
            where = '.'.join(names[:depth]) or 'the config'
            raise SystemExit(
                f'--cfg-options {option}: there is no "{name}" in {where}. '
                + (f'Did you mean "{near[0]}"? ' if near else '')
                + f'Known here: {", ".join(sorted(known))}'
            )
        node = child


def prepare_cpu_processes(cfg: Config) -> None:
    """Let several processes work together on a machine without a GPU.

    The engine's own start selects a CUDA device, and its model wrapper is
    handed one.
    """
    torch.distributed.init_process_group(backend='gloo')
    cfg.setdefault('model_wrapper_cfg', ConfigDict())
    cfg.model_wrapper_cfg.setdefault('type', 'MMDistributedDataParallel')
    cfg.model_wrapper_cfg.setdefault('device_ids', None)
    cfg.model_wrapper_cfg.setdefault('broadcast_buffers', False)
    cfg.model_wrapper_cfg.setdefault(
        'find_unused_parameters', cfg.get('find_unused_parameters', False)
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the command line into it."""
    if not Path(args.config).is_file():
        raise SystemExit(
            f'The config file "{args.config}" does not exist (looked from '
            f'"{Path.cwd()}").'
        )
    cfg = Config.fromfile(args.config)
    for option in args.cfg_options or {}:
        check_option(cfg, option)
    cfg.merge_from_dict(args.cfg_options or {})

    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise SystemExit(
                f'--auto-scale-lr: {args.config} names no batch size that '
                'its learning rate is meant for; add auto_scale_lr=dict('
                'base_batch_size=...).'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from') and '://' not in cfg.load_from:
        if not Path(cfg.load_from).is_file():
            raise SystemExit(
                f'The checkpoint "{cfg.load_from}" does not exist (looked '
                f'from "{Path.cwd()}").'
            )
    return cfg


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    if args.launcher == 'pytorch' and not torch.cuda.is_available():
        prepare_cpu_processes(cfg)
    runner = (
        RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    )
    runner.train()


if __name__ == '__main__':
    main()
