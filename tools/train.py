"""Train a model from a config file."""

import argparse
import difflib
import inspect
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint


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


# What the runner reads of a config beside its own arguments.
RUNNER_KEYS = {
    *inspect.signature(Runner).parameters,
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
}


def places_of(value: Any, node: Any, path: str = '') -> list[str]:
    """List the paths below a node of a config that hold a value."""
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, (list, tuple)):
        children = list(enumerate(node))
    else:
        return []
    places = []
    for key, child in children:
        name = f'{path}.{key}' if path else str(key)
        if type(child) is type(value) and child == value:
            places.append(name)
        places += places_of(value, child, name)
    return places


def check_option(cfg: Config, option: str) -> None:
    """Refuse a key that would have no effect.

    All but its last component must be there, and the last must not look like
    a misspelt one. The first must be one that the runner reads: the others
    are intermediate values, which were copied when the file was read.
    """
    node: Any = cfg._cfg_dict
    names = option.split('.')
    read = set(RUNNER_KEYS)
    if 'data_preprocessor' in cfg.get('model', {}):
        # the model's own has precedence
        read.discard('data_preprocessor')
    for depth, name in enumerate(names):
        where = '.'.join(names[:depth])
        last = depth == len(names) - 1
        if isinstance(node, dict):
            known = {str(key) for key in node}
            if depth == 0:
                known |= read
        elif isinstance(node, (list, tuple)):
            known = {str(i) for i in range(len(node))}
        else:
            raise SystemExit(
                f'--cfg-options {option}: {where} is {node!r} in this '
                'config, which has no keys.'
            )
        if name not in known:
            # a new last component may be an argument left at its default
            may_be_new = last and depth > 0 and isinstance(node, dict)
            near = difflib.get_close_matches(
                name, known, 1, 0.85 if may_be_new else 0.6
            )
            if near or not may_be_new:
                raise SystemExit(
                    f'--cfg-options {option}: there is no "{name}" in '
                    f'{where or "the config"}. '
                    + (f'Did you mean "{near[0]}"? ' if near else '')
                    + f'Known here: {", ".join(sorted(known))}'
                )
            return
        if depth == 0 and name not in read:
            places = [
                place
                for place in places_of(node[name], node)
                if place.split('.')[0] in read
            ]
            raise SystemExit(
                f'--cfg-options {option}: "{name}" is an intermediate value '
                'of the config file, which the runner never reads. Set what '
                'was made from it'
                + (
                    f'; the same value have {", ".join(places[:5])}.'
                    if places
                    else '.'
                )
            )
        node = node.get(name) if isinstance(node, dict) else node[int(name)]


def prepare_cpu_processes(cfg: Config) -> None:
    """Let several processes work together on a machine without a GPU.

    The engine's own start selects a CUDA device, and its model wrapper is
    handed one.
    """
    rank, world_size, local_rank, starter = {
        'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'torchrun'),
        'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'srun'),
        'mpi': (
            'OMPI_COMM_WORLD_RANK',
            'OMPI_COMM_WORLD_SIZE',
            'OMPI_COMM_WORLD_LOCAL_RANK',
            'mpirun of Open MPI',
        ),
    }[cfg.launcher]
    environ = os.environ
    missing = [n for n in (rank, world_size, local_rank) if n not in environ]
    if missing:
        raise SystemExit(
            f'--launcher {cfg.launcher}: {", ".join(missing)} is not in the '
            f'environment. Start the script with {starter}, or without '
            '--launcher for a single process.'
        )
    environ['RANK'] = environ[rank]
    environ['WORLD_SIZE'] = environ[world_size]
    environ['LOCAL_RANK'] = environ[local_rank]
    environ.setdefault('MASTER_PORT', '29500')
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in environ:
        environ['MASTER_ADDR'] = subprocess.check_output(
            ['scontrol', 'show', 'hostname', environ['SLURM_NODELIST']],
            text=True,
        ).split()[0]
    if 'MASTER_ADDR' not in environ:
        raise SystemExit(
            f'--launcher {cfg.launcher}: set MASTER_ADDR in the environment '
            'to the host name of the first process.'
        )
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
