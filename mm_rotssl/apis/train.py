from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mm_rotssl.utils import newest_checkpoint

from .checks import build_datasets, check_schedule, use_datasets
from .config import merge_options, read_config
from .shortcuts import apply_shortcuts


def read_training_config(
    config: str | Path,
    options: dict[str, Any] | None = None,
    *,
    work_dir: str | Path | None = None,
    resume: str | Path | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    validate: bool = True,
    **shortcuts: Any,
) -> Config:
    """Read a config and make it ready for training.

    Args:
        config (str | Path): The file, or the name of a shipped config.
        options (dict[str, Any], optional): Dotted key -> value; they have
            precedence over ``shortcuts``. Defaults to None.
        work_dir (str | Path, optional): Folder of logs and checkpoints.
            Defaults to None: the one of the config, else
            ``work_dirs/NAME``.
        resume (str | Path, optional): Checkpoint of a run to go on with, or
            'auto' for the newest one in ``work_dir``, if there is any.
            Defaults to None.
        amp (bool): Train with mixed precision. Defaults to False.
        auto_scale_lr (bool): Scale the learning rate from
            ``auto_scale_lr.base_batch_size`` to the actual batch size.
            Defaults to False.
        validate (bool): Measure during training, if the config says how.
            Defaults to True.
        **shortcuts: See :func:`~mm_rotssl.apis.apply_shortcuts`: ``epochs``,
            ``batch_size``, ``lr``, ``crop_size`` and ``data``.

    Returns:
        Config: For :func:`train_model`.

    Raises:
        FileNotFoundError: If the config or a checkpoint is missing.
        ValueError: If a setting would have no effect, or mixed precision is
            not to be had here.
    """
    cfg = read_config(config)
    apply_shortcuts(cfg, **shortcuts)
    merge_options(cfg, options or {})
    if work_dir:
        cfg.work_dir = str(work_dir)
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs') / Path(cfg.filename).stem)
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if amp:
        if get_device() in ('cpu', 'mps'):
            raise ValueError(
                '--amp: mixed precision needs a GPU, and there is none here. '
                'Leave --amp out.'
            )
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError(
                f'--auto-scale-lr: {cfg.filename} names no batch size that '
                'its learning rate is meant for; add auto_scale_lr=dict('
                'base_batch_size=...).'
            )
        cfg.auto_scale_lr.enable = True
    if resume:
        # the first start of a job that may be interrupted has nothing to
        # resume from, but perhaps weights to begin with
        newest = (
            newest_checkpoint(cfg.work_dir)
            if resume == 'auto'
            else str(resume)
        )
        cfg.resume = newest is not None
        if newest is not None:
            cfg.load_from = newest
    weights = cfg.get('load_from')
    if weights and '://' not in weights and not Path(weights).is_file():
        raise FileNotFoundError(
            f'The checkpoint "{weights}" does not exist (looked from '
            f'"{Path.cwd()}").'
        )
    return cfg


def train_model(cfg: Config) -> Runner:
    """Train as a config says.

    Args:
        cfg (Config): With a ``work_dir``, see :func:`read_training_config`.

    Returns:
        Runner: That has trained; its ``model`` has the final weights.

    Raises:
        InputError: If the images are missing or too few, or the schedule
            does not fit the run.
    """
    datasets, steps = build_datasets(cfg)
    check_schedule(cfg, steps)
    runner = (
        RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    )
    use_datasets(runner, datasets)
    runner.train()
    # NCCL asks for it; gloo does not, and torch 2.5 may hang there
    if (
        torch.distributed.is_initialized()
        and torch.distributed.get_backend() == 'nccl'
    ):
        torch.distributed.destroy_process_group()
    return runner
