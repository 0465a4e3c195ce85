"""Fine-tune a detector or segmenter from several initializations."""

import copy
import inspect
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.structures import BaseDataElement, PixelData
from rich.table import Table
from torch.nn.modules.batchnorm import _BatchNorm

from mm_rotssl.engine import PretrainedCheckHook
from mm_rotssl.engine.hooks.pretrained_check_hook import is_pretrained
from mm_rotssl.evaluation.report import (
    format_spread,
    make_table,
    write_summary,
)
from mm_rotssl.utils import save_figure, write_file
from mm_rotssl.visualization import (
    SERIES,
    plot_image_table,
    plot_transfer,
    read_scalars,
)

from .config import merge_options, read_config

TRAIN = (sys.executable, '-m', 'mm_rotssl', 'train')
# metrics in the range of 0 to 1; the other ones are in percent
# (11points/ and area/ are those of our VOC configs)
FRACTIONS = ('coco/', 'pascal_voc/', 'cityscapes/', '11points/', 'area/')
HEADLINES = ('mAP', 'mIoU')
# pixels
SHOWN_SIDE = 300
NOT_METRICS = ('data_time', 'time', 'step')
CHECK = f'mm_rotssl.{PretrainedCheckHook.__name__}'
# mmdet measures nothing where it finds nothing
NOTHING = 'nothing measured, as nothing was predicted (no box, no class)'


class Run(NamedTuple):
    """One training.

    Attributes:
        init (str): Name of the initialization.
        seed (int): Of the run.
        folder (Path): Its work directory.
        cfg (Config): All of its settings.
        file (str, optional): The weights that it starts from.
    """

    init: str
    seed: int
    folder: Path
    cfg: Config
    file: str | None = None


def pretrained_nodes(
    node: Any, path: str = 'model'
) -> Iterator[tuple[str, dict]]:
    """Dotted keys and settings of all that is initialized from a file."""
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
        found = node.get('init_cfg')
        several = found if isinstance(found, (list, tuple)) else [found]
        if any(map(is_pretrained, several)):
            yield path, node
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    for key, child in children:
        yield from pretrained_nodes(child, f'{path}.{key}')


def set_init(node: dict, file: str | None) -> None:
    """Let a part of a model start from another file, or at random."""
    found = node['init_cfg']
    several = found if isinstance(found, (list, tuple)) else [found]
    changed = [
        dict(settings, checkpoint=file)
        if is_pretrained(settings)
        else settings
        for settings in several
        if file is not None or not is_pretrained(settings)
    ]
    if isinstance(found, (list, tuple)):
        node['init_cfg'] = changed
    else:
        node['init_cfg'] = changed[0] if changed else None


def free_stages(cfg: Config) -> dict[str, Any]:
    """Let all of what is initialized from a file be trained.

    Recipes for supervised weights freeze the first stages and the statistics
    of normalizations. Random ones would stay as they are, and everything
    would look better beside them.

    Args:
        cfg (Config): Changed in place.

    Returns:
        dict[str, Any]: Dotted key -> new value, of what was otherwise.
    """
    changed: dict[str, Any] = {}
    for place, node in pretrained_nodes(cfg.model):
        # 0 freezes the stem of some networks and nothing of others
        if node.get('frozen_stages', -1) != -1:
            node['frozen_stages'] = changed[f'{place}.frozen_stages'] = -1
        if node.get('norm_eval', default_of(cfg, node, 'norm_eval')):
            node['norm_eval'] = changed[f'{place}.norm_eval'] = False
        norm = node.get('norm_cfg')
        if isinstance(norm, dict) and norm.get('requires_grad') is False:
            # one object for several parts
            node['norm_cfg'] = {**norm, 'requires_grad': True}
            changed[f'{place}.norm_cfg.requires_grad'] = True
    return changed


def default_of(cfg: Config, node: dict, name: str) -> Any:
    """Default of an argument of what a part of a model is built of."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        kind = node.get('type')
        build = MODELS.get(kind) if isinstance(kind, str) else kind
    # arguments may be passed on to the classes above
    for parent in getattr(build, '__mro__', ()):
        parameters = inspect.signature(parent.__init__).parameters
        if name in parameters:
            return parameters[name].default
    return None


def set_crop_size(cfg: Config, size: int) -> dict[str, Any]:
    """Change the crops of a segmenter, with all that depends on their size.

    Images are scaled in proportion, and what is as large as the crops stays
    so: a setting that is forgotten pads every crop to the old size.

    Args:
        cfg (Config): Of mmseg; changed in place.
        size (int): The new side in pixels.

    Returns:
        dict[str, Any]: Dotted key -> new value.

    Raises:
        ValueError: If the config has no RandomCrop for training.
    """
    old = crop_of(cfg)
    if old is None:
        raise ValueError(
            f'--crop-size {size}: the config has no RandomCrop with a '
            'crop_size in train_dataloader.'
        )
    changed: dict[str, Any] = {}

    def scaled(value: Any, place: str) -> Any:
        sides = [value] if isinstance(value, (int, float)) else list(value)
        new = [max(1, round(side * size / old)) for side in sides]
        changed[place] = new[0] if isinstance(value, int) else tuple(new)
        return changed[place]

    def visit(node: Any, path: str) -> None:
        if isinstance(node, (list, tuple)):
            for i, child in enumerate(node):
                visit(child, f'{path}.{i}')
        elif isinstance(node, dict):
            for key in ('crop_size', 'size', 'scale'):
                if node.get(key) is not None:
                    node[key] = scaled(node[key], f'{path}.{key}')
            for key, child in node.items():
                visit(child, f'{path}.{key}')

    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = (cfg.get(loader) or {}).get('dataset')
        visit(dataset, f'{loader}.dataset')
    for holder, place in (
        (cfg.model.get('data_preprocessor'), 'model.data_preprocessor'),
        (cfg.get('data_preprocessor'), 'data_preprocessor'),
        (cfg.model.get('test_cfg'), 'model.test_cfg'),
    ):
        for key in ('size', 'crop_size', 'stride'):
            if holder and holder.get(key) is not None:
                holder[key] = scaled(holder[key], f'{place}.{key}')
    return changed


def crop_of(cfg: Config) -> int | None:
    """Side of the crops that training takes, if it takes any."""
    pending: list[Any] = [(cfg.get('train_dataloader') or {}).get('dataset')]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if node.get('type') == 'RandomCrop' and node.get('crop_size'):
                side = node['crop_size']
                return side if isinstance(side, int) else max(side)
            pending.extend(node.values())
        elif isinstance(node, (list, tuple)):
            pending.extend(node)
    return None


def check_padding(cfg: Config) -> None:
    """Refuse to pad all crops of a segmenter to a size left over.

    Args:
        cfg (Config): The config.

    Raises:
        ValueError: If the preprocessor pads to more than the crops.
    """
    settings = cfg.model.get('data_preprocessor') or cfg.get(
        'data_preprocessor'
    )
    size, crop = (settings or {}).get('size'), crop_of(cfg)
    if size and crop and max(size) > crop:
        raise ValueError(
            f'model.data_preprocessor.size={tuple(size)} would pad every '
            f'crop of {crop} pixels to {max(size)}. --crop-size {crop} '
            'changes all that depends on it.'
        )


def plan_runs(
    config: str,
    inits: Mapping[str, str | None],
    out: Path,
    seeds: Sequence[int],
    cfg_options: Mapping[str, Any] | None = None,
    crop_size: int | None = None,
) -> tuple[list[Run], dict[str, Any]]:
    """List all runs, in the order of seeds.

    Args:
        config (str): The config of mmdet or mmseg.
        inits (Mapping[str, str | None]): See :func:`compare_transfer`.
        out (Path): Folder of their work directories.
        seeds (Sequence[int]): Of the runs.
        cfg_options (Mapping[str, Any], optional): See
            :func:`compare_transfer`. Defaults to None.
        crop_size (int, optional): See :func:`compare_transfer`. Defaults to
            None.

    Returns:
        tuple[list[Run], dict[str, Any]]: The runs, and what was changed in
        the config for all of them.

    Raises:
        ValueError: If the config is initialized from no file or from another
            checkpoint, a name can't be a folder's, there are too many, or a
            seed is there twice.
        FileNotFoundError: If a file does not exist.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f'--seeds {list(seeds)}: one is there twice.')
    if len(inits) > len(SERIES):
        raise ValueError(f'--init: at most {len(SERIES)} can be told apart.')
    for name in inits:
        if set(name) & set('/\\{}'):
            raise ValueError(
                f"--init {name}: the name becomes part of a folder's; it "
                'must have no slashes and braces.'
            )
    cfg = read_config(config, dict(cfg_options or {}))
    if not list(pretrained_nodes(cfg.model)):
        raise ValueError(
            f"{config} has no init_cfg=dict(type='Pretrained', "
            'checkpoint=...) in its model, so there is nothing to put in its '
            'place. Add it to model.backbone.'
            + (
                ' model.pretrained is another way to name a file: set it to '
                'None.'
                if cfg.model.get('pretrained')
                else ''
            )
        )
    if cfg.get('load_from'):
        raise ValueError(
            f'{config} has load_from={cfg.load_from!r}, which would replace '
            'every initialization: set load_from=None.'
        )
    changed = free_stages(cfg)
    if crop_size is not None:
        changed.update(set_crop_size(cfg, crop_size))
    check_padding(cfg)
    hooks = cfg.get('custom_hooks') or []
    if find_check(cfg) is None:
        hooks = [*hooks, dict(type=CHECK)]
        changed['custom_hooks'] = f'with {CHECK}'
    cfg.custom_hooks = hooks
    runs = []
    for seed in seeds:
        for name, pattern in inits.items():
            one = copy.deepcopy(cfg)
            merge_options(one, {'randomness.seed': seed})
            file = pattern and pattern.replace('{seed}', str(seed))
            if file and '://' not in file and not Path(file).is_file():
                raise FileNotFoundError(
                    f'--init {name}={file}: there is no such file '
                    f'(looked from "{Path.cwd()}").'
                )
            for _, node in pretrained_nodes(one.model):
                set_init(node, file)
            folder = out / f'{name}-seed{seed}'
            runs.append(Run(name, seed, folder, one, file))
    return runs, changed


def find_check(cfg: Config) -> dict | None:
    """The settings of ``PretrainedCheckHook`` in a config."""
    for hook in cfg.get('custom_hooks') or ():
        kind = hook.get('type') if isinstance(hook, dict) else None
        if getattr(kind, '__name__', str(kind)).endswith(
            PretrainedCheckHook.__name__
        ):
            return hook
    return None


def check_run(run: Run) -> None:
    """See to it that weights will arrive, and that all of them are trained.

    Args:
        run (Run): From a file.

    Raises:
        ValueError: If they would not.
    """
    cfg = copy.deepcopy(run.cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)
        hook = HOOKS.build(find_check(cfg))
    try:
        hook.check(model, cfg)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f'--init {run.init}: {error}') from error
    model.train()
    for name, module in model.named_modules():
        found = getattr(module, 'init_cfg', None)
        several = found if isinstance(found, (list, tuple)) else [found]
        if not any(map(is_pretrained, several)):
            continue
        stuck = [
            key
            for key, value in module.named_parameters()
            if not value.requires_grad
        ] + [
            key
            for key, part in module.named_modules()
            if isinstance(part, _BatchNorm) and not part.training
        ]
        if stuck:
            raise ValueError(
                f'model.{name} keeps {len(stuck)} parts as they start, such '
                f'as {stuck[0]}. Random ones would stay random, so nothing '
                'could be compared with them: let all of it be trained.'
            )


def train(run: Run, jobs: int) -> float:
    """Train unless it is done.

    Returns:
        float: Seconds, 0 if it was done.

    Raises:
        ValueError: If the folder holds a run with other settings.
        RuntimeError: If it failed.
    """
    settings, done = run.cfg.pretty_text, run.folder / 'done.json'
    asked = run.folder.parent / f'{run.folder.name}.py'
    if asked.is_file():
        same = asked.read_text(encoding='utf-8') == settings
    else:
        # as versions left it that did not free the stages
        same = not run.folder.exists()
    if not same:
        raise ValueError(
            f'"{run.folder}" holds a run with other settings, those of '
            f'"{asked.name}" beside it. Name another --out, or remove both.'
        )
    if done.is_file():
        return 0.0
    write_file(asked, settings.encode())
    run.folder.mkdir(exist_ok=True)
    command = [*TRAIN, str(asked)]
    command += ['--work-dir', str(run.folder), '--resume']
    environment = dict(os.environ)
    if jobs > 1:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        environment.setdefault('OMP_NUM_THREADS', str(threads))
    started = time.perf_counter()
    log = run.folder / 'train.log'
    with log.open('ab') as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment
        ).returncode
    if code:
        lines = log.read_text(errors='replace').strip().split('\n')
        raise RuntimeError(
            f'{run.init}, seed {run.seed}, failed (exit status {code}). The '
            f'end of {log}:\n  ' + '\n  '.join(lines[-8:])
        )
    seconds = round(time.perf_counter() - started, 1)
    write_file(done, json.dumps(dict(seconds=seconds)).encode())
    return seconds


def train_all(
    runs: list[Run], jobs: int, report: Callable[[str], None]
) -> None:
    """Train all of them; the first failure ends it."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(train, run, jobs) for run in runs]
        try:
            for run, future in zip(runs, futures, strict=True):
                seconds = future.result()
                final = final_metrics(run)
                headline = next(iter(headlines(final)), None)
                report(
                    f'{run.init}, seed {run.seed}: '
                    + (
                        f'{headline} {final[headline]:.1f}'
                        if headline
                        else NOTHING
                    )
                    + (f', {seconds:.0f} s' if seconds else ', as it was')
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def read_run(run: Run) -> tuple[list[dict], list[dict]]:
    """Logged lines of training and of validation; metrics in percent."""
    lines, found = read_scalars(
        sorted(run.folder.glob('*/vis_data/scalars.json'))
    )
    val = []
    for line in found:
        # what COCO can't measure is -1
        metrics = {
            key: value * (100 if key.startswith(FRACTIONS) else 1)
            for key, value in line.items()
            if key not in NOT_METRICS and not math.isnan(value) and value >= 0
        }
        val.append({'step': line['step'], **metrics})
    return lines, val


def final_metrics(run: Run) -> dict[str, float]:
    """What the last validation gave.

    Raises:
        ValueError: If there was none.
    """
    _, val = read_run(run)
    if not val:
        raise ValueError(
            f'"{run.folder}" was never validated: the config needs val_cfg, '
            'val_dataloader and val_evaluator, and a train_cfg.val_interval '
            'no longer than the run.'
        )
    return {k: v for k, v in val[-1].items() if k != 'step'}


def headlines(metrics: dict[str, float]) -> list[str]:
    """The metrics that papers report first."""
    return [key for key in metrics if key.endswith(HEADLINES)]


def enlarge(image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
    """Enlarge a small image and what was found in it.

    The downstream packages draw lines and letters of one size, which hide
    small images.
    """
    factor = max(1, SHOWN_SIDE // max(image.shape[:2]))
    for key in ('gt_instances', 'pred_instances'):
        if factor > 1 and key in sample:
            instances = sample.get(key)
            instances.bboxes = instances.bboxes * factor
            # those would have to be enlarged as well; the boxes tell enough
            instances.pop('masks', None)
    for key in ('gt_sem_seg', 'pred_sem_seg'):
        if factor > 1 and key in sample:
            classes = sample.get(key).data
            classes = classes.repeat_interleave(factor, 1)
            classes = classes.repeat_interleave(factor, 2)
            sample.set_field(PixelData(data=classes), key)
    return image.repeat(factor, 0).repeat(factor, 1)


def draw_predictions(
    run: Run, count: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw validation images with the visualizer of mmdet or mmseg.

    Returns:
        tuple[list[ndarray], list[ndarray]]: With what is true and with what
        is predicted, uint8 (H, W, 3) in RGB order.
    """
    cfg = copy.deepcopy(run.cfg)
    # so that the run's own logs stay as they are
    with tempfile.TemporaryDirectory() as temporary:
        cfg.work_dir = temporary
        cfg.log_level = 'ERROR'
        cfg.launcher = 'none'
        cfg.experiment_name = f'{run.folder.name}-{time.time_ns()}'
        # names are global
        cfg.visualizer.name = cfg.experiment_name
        cfg.load_from = find_latest_checkpoint(str(run.folder))
        cfg.resume = False
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
        model = runner.model.eval()
        dataset = runner.build_dataloader(cfg.val_dataloader).dataset
        runner.visualizer.dataset_meta = dataset.metainfo
        truths: list[np.ndarray] = []
        predictions: list[np.ndarray] = []
        chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset)))
        for index in chosen.astype(int):
            batch = pseudo_collate([dataset[int(index)]])
            with torch.no_grad():
                sample = model.test_step(batch)[0]
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            image = enlarge(image, sample)
            for kind, drawn in ((0, truths), (1, predictions)):
                file = str(Path(temporary) / f'{kind}.png')
                runner.visualizer.add_datasample(
                    *('image', image, sample),
                    draw_gt=kind == 0,
                    draw_pred=kind == 1,
                    out_file=file,
                )
                drawn.append(mmcv.imread(file, channel_order='rgb'))
    return truths, predictions


def compare_transfer(
    config: str | Path,
    inits: Mapping[str, str | None],
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    jobs: int = 1,
    images: int = 4,
    cfg_options: Mapping[str, Any] | None = None,
    crop_size: int | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fine-tune from several initializations, and compare.

    For every initialization and seed the config is trained in a process of
    its own. What is there already is not done again, so that an interrupted
    comparison goes on.

    Every start is treated alike: the stages and normalizations that recipes
    for supervised weights freeze are trained, see ``free_stages``; and
    that weights arrive is checked by
    :class:`~mm_rotssl.engine.PretrainedCheckHook` before anything is trained,
    whether the config has it or not.

    Args:
        config (str | Path): Config of mmdet or mmseg that has an
            ``init_cfg=dict(type='Pretrained', ...)``.
        inits (Mapping[str, str | None]): Name -> file or URL of the weights
            that take its place, at most four; None: random weights. A file
            may hold ``{seed}``.
        out (str | Path): Receives the work directory of each run,
            ``results.json``, ``curves.png`` (losses and validation) and
            ``predictions.png`` (of the first seed).
        seeds (Sequence[int]): Of the runs. Defaults to (0, 1, 2).
        jobs (int): Runs at a time, which share the cores. Defaults to 1.
        images (int): Validation images to draw predictions of. Defaults to
            4.
        cfg_options (Mapping[str, Any], optional): Dotted key -> value,
            settings of the config to replace in all runs. Defaults to None.
        crop_size (int, optional): Side in pixels of a segmenter's crops,
            with all that depends on it, see :func:`set_crop_size`. Defaults
            to None, that of the config.
        report (Callable): Is told what was changed, and of each run that is
            done. Defaults to ``print``.

    Returns:
        dict[str, Any]: What ``results.json`` holds: metrics of the last
        validation as ``final`` and of all as ``validation``, in percent, by
        name and seed; ``unmeasured``, the runs that predicted nothing;
        ``changed``, what all runs have otherwise than the config; ``seconds``
        of each run; ``figures``; and how they came about.

    Raises:
        FileNotFoundError: If a file of weights is missing.
        ValueError: If config, names or seeds are not as they should be,
            weights would not arrive, or ``out`` holds runs with other
            settings.
        RuntimeError: If a run failed.
    """
    config, out = str(config), Path(out)
    runs, changed = plan_runs(
        config, inits, out, seeds, cfg_options, crop_size
    )
    MMLogger.get_current_instance().setLevel('ERROR')
    # one of each file
    for run in {run.file: run for run in runs if run.file}.values():
        if not (run.folder / 'done.json').is_file():
            check_run(run)
    if changed:
        report('For every start:')
    for key, value in changed.items():
        report(f'  {key}={value}')
    out.mkdir(parents=True, exist_ok=True)
    train_all(runs, jobs, report)
    finals: dict[str, list[dict[str, float]]] = {}
    logs: dict[str, list[tuple[list[dict], list[dict]]]] = {}
    for run in runs:
        finals.setdefault(run.init, []).append(final_metrics(run))
        logs.setdefault(run.init, []).append(read_run(run))
    summary = write_summary(
        out / 'results.json',
        config=config,
        device=torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else 'cpu',
        seeds=list(seeds),
        changed=changed,
        unmeasured=[
            run.folder.name
            for run in runs
            if not headlines(final_metrics(run))
        ],
        seconds={
            run.folder.name: json.loads(
                (run.folder / 'done.json').read_text()
            )['seconds']
            for run in runs
        },
        final=finals,
        validation={
            name: [val for _, val in found] for name, found in logs.items()
        },
        figures=['curves.png', 'predictions.png'],
    )
    train_cfg = runs[0].cfg.train_cfg
    by_epoch = train_cfg.get('by_epoch') or 'Epoch' in str(
        train_cfg.get('type')
    )
    save_figure(
        plot_transfer(
            logs,
            # some may have measured nothing
            list(
                dict.fromkeys(
                    key
                    for found in finals.values()
                    for metrics in found
                    for key in headlines(metrics)
                )
            ),
            'epoch' if by_epoch else 'iteration',
            Path(config).stem,
        ),
        out / 'curves.png',
    )
    columns: dict[str, list[np.ndarray]] = {}
    for run in runs[: len(finals)]:
        columns['true'], columns[run.init] = draw_predictions(run, images)
    save_figure(
        plot_image_table(columns, f'Seed {seeds[0]}'), out / 'predictions.png'
    )
    return summary


def transfer_table(summary: Mapping[str, Any]) -> Table:
    """Put what :func:`compare_transfer` found into a table.

    Args:
        summary (Mapping[str, Any]): What it returned.

    Returns:
        Table: A row a metric; mean and sample standard deviation over the
        seeds.
    """
    finals = summary['final']
    seeds = len(next(iter(finals.values())))
    table = make_table(
        '%, mean and sample standard deviation over '
        f'{seeds} seed{"s" if seeds > 1 else ""}',
        ['metric'],
        list(finals),
    )
    if summary.get('unmeasured'):
        table.caption = f'{", ".join(summary["unmeasured"])}: {NOTHING}'
    # a class that no image has is not measured
    keys = dict.fromkeys(
        k for runs in finals.values() for m in runs for k in m
    )
    for key in keys:
        cells = []
        for runs in finals.values():
            values = [m[key] for m in runs if key in m]
            cell = format_spread(values) if values else '-'
            if 0 < len(values) < len(runs):
                cell += f' ({len(values)} of {len(runs)})'
            cells.append(cell)
        table.add_row(key, *cells)
    return table
