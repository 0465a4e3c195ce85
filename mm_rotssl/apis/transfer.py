"""Fine-tune a detector or segmenter from several initializations."""

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
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.structures import BaseDataElement, PixelData
from rich.table import Table

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

from .config import read_config

TRAIN = (sys.executable, '-m', 'mm_rotssl', 'train')
# metrics in the range of 0 to 1; the other ones are in percent
# (11points/ and area/ are those of our VOC configs)
FRACTIONS = ('coco/', 'pascal_voc/', 'cityscapes/', '11points/', 'area/')
HEADLINES = ('mAP', 'mIoU')
# pixels
SHOWN_SIDE = 300
NOT_METRICS = ('data_time', 'time', 'step')


class Run(NamedTuple):
    """One training."""

    init: str
    seed: int
    folder: Path
    options: list[str]


def pretrained_places(node: Any, path: str = '') -> Iterator[str]:
    """Dotted keys of everything that is initialized from a file."""
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    for key, child in children:
        place = f'{path}.{key}' if path else str(key)
        if (
            key == 'init_cfg'
            and isinstance(child, dict)
            and child.get('type') == 'Pretrained'
        ):
            yield place
        else:
            yield from pretrained_places(child, place)


def plan_runs(
    config: str,
    inits: Mapping[str, str | None],
    out: Path,
    seeds: Sequence[int],
    cfg_options: Sequence[str],
) -> list[Run]:
    """List all runs, in the order of seeds.

    Args:
        config (str): The config of mmdet or mmseg.
        inits (Mapping[str, str | None]): See :func:`compare_transfer`.
        out (Path): Folder of their work directories.
        seeds (Sequence[int]): Of the runs.
        cfg_options (Sequence[str]): See :func:`compare_transfer`.

    Returns:
        list[Run]: The runs.

    Raises:
        ValueError: If the config is initialized from no file, a name can't
            be a folder's, there are too many, or a seed is there twice.
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
    cfg = read_config(config)
    places = list(pretrained_places(cfg.model, 'model'))
    if not places:
        raise ValueError(
            f"{config} has no init_cfg=dict(type='Pretrained', "
            'checkpoint=...) in its model, so there is nothing to put in its '
            'place. Add it to model.backbone.'
        )
    runs = []
    for seed in seeds:
        for name, pattern in inits.items():
            options = [f'randomness.seed={seed}', *cfg_options]
            if pattern is None:
                options += [f'{place}=None' for place in places]
            else:
                file = pattern.replace('{seed}', str(seed))
                if '://' not in file and not Path(file).is_file():
                    raise FileNotFoundError(
                        f'--init {name}={file}: there is no such file '
                        f'(looked from "{Path.cwd()}").'
                    )
                options += [f'{place}.checkpoint={file}' for place in places]
            runs.append(Run(name, seed, out / f'{name}-seed{seed}', options))
    return runs


def train(run: Run, config: str, jobs: int) -> float:
    """Train unless it is done.

    Returns:
        float: Seconds, 0 if it was done.

    Raises:
        ValueError: If the folder holds a run with other settings.
        RuntimeError: If it failed.
    """
    settings = json.dumps(dict(config=config, options=run.options), indent=1)
    asked, done = run.folder / 'settings.json', run.folder / 'done.json'
    if asked.is_file() and asked.read_text() != settings:
        raise ValueError(
            f'"{run.folder}" holds a run with other settings, those of '
            f'"{asked.name}" in it. Name another --out, or remove the folder.'
        )
    if done.is_file():
        return 0.0
    write_file(asked, settings.encode())
    command = [*TRAIN, config, '--work-dir', str(run.folder), '--resume']
    command += ['--cfg-options', *run.options]
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
    runs: list[Run], config: str, jobs: int, report: Callable[[str], None]
) -> None:
    """Train all of them; the first failure ends it."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(train, run, config, jobs) for run in runs]
        try:
            for run, future in zip(runs, futures, strict=True):
                seconds = future.result()
                final = final_metrics(run)
                headline = next(iter(headlines(final)), None)
                report(
                    f'{run.init}, seed {run.seed}: '
                    + (f'{headline} {final[headline]:.1f}' if headline else '')
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
    cfg = Config.fromfile(next(run.folder.glob('*.py')))
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
    cfg_options: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fine-tune from several initializations, and compare.

    For every initialization and seed the config is trained in a process of
    its own. What is there already is not done again, so that an interrupted
    comparison goes on.

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
        cfg_options (Sequence[str]): ``key=value`` each, settings of the
            config to replace in all runs. Defaults to ().
        report (Callable): Is told of each run that is done. Defaults to
            ``print``.

    Returns:
        dict[str, Any]: What ``results.json`` holds: metrics of the last
        validation as ``final`` and of all as ``validation``, in percent, by
        name and seed; ``seconds`` of each run; ``figures``; and how they
        came about.

    Raises:
        FileNotFoundError: If a file of weights is missing.
        ValueError: If config, names or seeds are not as they should be, or
            ``out`` holds runs with other settings.
        RuntimeError: If a run failed.
    """
    config, out = str(config), Path(out)
    runs = plan_runs(config, inits, out, seeds, cfg_options)
    out.mkdir(parents=True, exist_ok=True)
    train_all(runs, config, jobs, report)
    MMLogger.get_current_instance().setLevel('ERROR')
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
    train_cfg = read_config(config).train_cfg
    by_epoch = train_cfg.get('by_epoch') or 'Epoch' in str(
        train_cfg.get('type')
    )
    save_figure(
        plot_transfer(
            logs,
            headlines(next(iter(finals.values()))[0]),
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
    table = make_table(
        '%, mean and sample standard deviation over '
        f'{len(next(iter(finals.values())))} seeds',
        ['metric'],
        list(finals),
    )
    # a class that no image has is not measured
    keys = dict.fromkeys(
        k for runs in finals.values() for m in runs for k in m
    )
    for key in keys:
        cells = []
        for runs in finals.values():
            values = [m[key] for m in runs if key in m]
            cells.append(format_spread(values) if values else '-')
        table.add_row(key, *cells)
    return table
