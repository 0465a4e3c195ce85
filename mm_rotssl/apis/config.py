"""What is done with a config before it is run."""

import difflib
import inspect
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import get_device
from mmengine.runner import Runner

from mm_rotssl.utils import find_config

from .old_names import translate_old_names

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

# mmengine looks for the configs of `_base_ = 'mmseg::...'` by the name under
# which OpenMMLab distributes mmseg. The fork has another; both import as this.
MODULE2PACKAGE['mmseg'] = 'mmseg'


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


def check_keys(cfg: Config) -> None:
    """Refuse a misspelled key at the top of a config.

    The runner passes over keys that it does not know, because a config may
    have intermediate values. One that the config itself never uses, and that
    looks like a key of the runner, is no such value.

    Args:
        cfg (Config): As read from its file.

    Raises:
        ValueError: If there is one.
    """
    for key in cfg.keys() - RUNNER_KEYS:
        near = difflib.get_close_matches(key, RUNNER_KEYS, 1, 0.75)
        if not near:
            continue
        # the text of each file begins with its name
        text = re.sub(r'(?m)^\S.*\.(py|json|ya?ml)$', '', cfg.text)
        others = re.sub(rf'(?m)^{re.escape(key)}\s*=', '', text)
        used = re.search(rf'\b{re.escape(key)}\b(?!["\']?:)', others)
        # what a run leaves beside its checkpoints has its values copied
        if not used and text.strip() != cfg.pretty_text.strip():
            raise ValueError(
                f'{cfg.filename}: nothing reads "{key}". Did you mean '
                f'"{near[0]}"?'
            )


def check_option(cfg: Config, option: str) -> None:
    """Refuse a key that would have no effect.

    All but its last component must be there, and the last must not look like
    a misspelled one. The first must be one that the runner reads: the others
    are intermediate values, which were copied when the file was read.

    Args:
        cfg (Config): To be changed.
        option (str): Dotted key.

    Raises:
        ValueError: If it is such a key.
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
            raise ValueError(
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
                raise ValueError(
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
            raise ValueError(
                f'--cfg-options {option}: "{name}" is an intermediate value '
                'of the config file, which the runner never reads. Set what '
                'was made from it'
                + (
                    f'; the same value have {", ".join(places[:5])}.'
                    if places
                    else '.'
                )
            )
        if depth == 0 and name not in node:
            # an argument of the runner that this config leaves at its default
            return
        node = node[name] if isinstance(node, dict) else node[int(name)]


# Rank, number of processes and local rank as each launcher tells them.
_LAUNCHERS = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'torchrun'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'srun'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
        'mpirun of Open MPI',
    ),
}


def process_of(cfg: Config) -> tuple[int, int]:
    """Tell which process this is, before processes are connected.

    Args:
        cfg (Config): Its ``launcher`` tells how they were started.

    Returns:
        tuple[int, int]: Its number, from 0, and how many there are.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return 0, 1
    rank, processes, *_ = _LAUNCHERS[launcher]
    return int(os.environ.get(rank, 0)), int(os.environ.get(processes, 1))


def prepare_cpu_processes(cfg: Config) -> None:
    """Let several processes work together on a machine without a GPU.

    The engine's own start selects a CUDA device, and its model wrapper is
    handed one. Where there is a GPU, or a single process, that start is left
    to do its work.

    Args:
        cfg (Config): Its ``launcher`` tells how the processes were started.

    Raises:
        ValueError: If the launcher's variables are not in the environment.
    """
    if cfg.launcher == 'none':
        return
    if cfg.launcher == 'pytorch':
        # one process a machine may be started without it
        os.environ.setdefault('LOCAL_RANK', '0')
    if get_device() != 'cpu':
        return
    rank, world_size, local_rank, starter = _LAUNCHERS[cfg.launcher]
    environ = os.environ
    missing = [n for n in (rank, world_size, local_rank) if n not in environ]
    if missing:
        raise ValueError(
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
        raise ValueError(
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


def read_config(config: str | Path, options: dict | None = None) -> Config:
    """Read a config and change settings of it.

    Args:
        config (str | Path): The file, or the name of a shipped config, see
            :func:`~mm_rotssl.utils.find_config`.
        options (dict, optional): See :func:`merge_options`. Defaults to
            None.

    Returns:
        Config: The config.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If several have the name, a package that it builds on is
            missing, or one of its keys or an option would have no effect.
    """
    path = find_config(config)
    try:
        cfg = Config.fromfile(path)
    except ModuleNotFoundError as error:
        raise ValueError(
            f'{path} builds on a package that cannot be imported: {error}. '
            'mmdet and mmseg are installed by pip install '
            '"mm-rotssl[transfer]".'
        ) from error
    translate_old_names(cfg._cfg_dict)
    check_keys(cfg)
    merge_options(cfg, options or {})
    return cfg


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Change settings of a config.

    Args:
        cfg (Config): Changed in place.
        options (dict[str, Any]): Dotted key -> value, as mmengine's
            ``DictAction`` gives them.

    Raises:
        ValueError: If an option would have no effect.
    """
    for option in options:
        check_option(cfg, option)
    cfg.merge_from_dict(options)
