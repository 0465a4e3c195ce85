r"""Fine-tune a detector or segmenter from several beginnings, and compare.

CONFIG is one of mmdet or mmseg whose backbone has
init_cfg=dict(type='Pretrained', ...). For every beginning and every seed it is
trained by tools/train.py with another file in that place, or none:

    python tools/benchmarks/compare_transfer.py CONFIG --out DIR \
        --init random rotnet=backbone.pth supervised=torchvision://resnet18

A file's name may hold {seed}, for weights that were pre-trained several times.
What is there already is not done again, so that an interrupted comparison
goes on. DIR receives the work directory of each run, results.json,
curves.png (losses and validation) and predictions.png (of the first seed).
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
from rich import box
from rich.console import Console
from rich.table import Table

from mm_rotssl.apis import read_config, versions
from mm_rotssl.utils import save_figure, write_file
from mm_rotssl.visualization import (
    SERIES,
    plot_image_table,
    plot_transfer,
    read_scalars,
)

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config of mmdet or mmseg')
    parser.add_argument(
        '--init',
        nargs='+',
        required=True,
        metavar='NAME[=FILE]',
        help='what to begin with: a name and the file of weights, or '
        '"random" alone',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='runs at a time, which share the cores (default: 1)',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=4,
        help='validation images to draw predictions of (default: 4)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        help='replace settings of the config in all runs: key=value',
    )
    args = parser.parse_args()
    for name in ('jobs', 'images'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} {getattr(args, name)}: at least 1')
    if len(set(args.seeds)) < len(args.seeds):
        parser.error(f'--seeds {args.seeds}: one is there twice')
    if len(args.init) > len(SERIES):
        parser.error(f'--init: at most {len(SERIES)} can be told apart')
    return args


def parse_inits(words: list[str]) -> dict[str, str | None]:
    """Name -> file, or None for random weights.

    Raises:
        ValueError: If one is neither, or a name is there twice.
    """
    inits: dict[str, str | None] = {}
    for word in words:
        name, separator, file = word.partition('=')
        if not name or (name == 'random') == bool(separator):
            raise ValueError(
                f'--init {word}: NAME=FILE, or "random" without a file.'
            )
        if name in inits:
            raise ValueError(f'--init: there are two named "{name}".')
        if set(name) & set('/\\{}'):
            raise ValueError(
                f"--init {word}: the name becomes part of a folder's; it "
                'must have no slashes and braces.'
            )
        inits[name] = file if separator else None
    return inits


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


def plan(args: argparse.Namespace) -> list[Run]:
    """All runs, in the order of seeds.

    Raises:
        ValueError: If the config begins with no file, or an ``--init`` is no
            such.
        FileNotFoundError: If a file does not exist.
    """
    cfg = read_config(args.config)
    places = list(pretrained_places(cfg.model, 'model'))
    if not places:
        raise ValueError(
            f"{args.config} has no init_cfg=dict(type='Pretrained', "
            'checkpoint=...) in its model, so there is nothing to put in its '
            'place. Add it to model.backbone.'
        )
    runs = []
    for seed in args.seeds:
        for name, pattern in parse_inits(args.init).items():
            options = [f'randomness.seed={seed}', *args.cfg_options]
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
            folder = args.out / f'{name}-seed{seed}'
            runs.append(Run(name, seed, folder, options))
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
    command = [sys.executable, str(TRAIN), config]
    command += ['--work-dir', str(run.folder), '--resume']
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
    runs: list[Run], args: argparse.Namespace, console: Console
) -> None:
    """Train all of them; the first failure ends it."""
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = [
            pool.submit(train, run, args.config, args.jobs) for run in runs
        ]
        try:
            for run, future in zip(runs, futures, strict=True):
                seconds = future.result()
                final = final_metrics(run)
                headline = next(iter(headlines(final)), None)
                console.print(
                    f'{run.init}, seed {run.seed}: '
                    + (f'{headline} {final[headline]:.1f}' if headline else '')
                    + (f', {seconds:.0f} s' if seconds else ', as it was'),
                    highlight=False,
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

    The hosts draw lines and letters of one size, which hide small images.
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
    """Draw validation images with the host's visualizer.

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
        truths, predictions = [], []
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


def metrics_table(finals: dict[str, list[dict[str, float]]]) -> Table:
    """Mean and sample standard deviation over the seeds."""
    table = Table(
        title='%, mean and sample standard deviation over '
        f'{len(next(iter(finals.values())))} seeds',
        title_justify='left',
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column('metric')
    for name in finals:
        table.add_column(name, justify='right')
    # a class that no image has is not measured
    keys = dict.fromkeys(
        k for runs in finals.values() for m in runs for k in m
    )
    for key in keys:
        cells = []
        for runs in finals.values():
            values = [m[key] for m in runs if key in m]
            cell = f'{statistics.mean(values):.1f}' if values else '-'
            if len(values) > 1:
                cell += f' ± {statistics.stdev(values):4.1f}'
            cells.append(cell)
        table.add_row(key, *cells)
    return table


def compare(args: argparse.Namespace, console: Console) -> None:
    runs = plan(args)
    args.out.mkdir(parents=True, exist_ok=True)
    train_all(runs, args, console)
    MMLogger.get_current_instance().setLevel('ERROR')
    finals: dict[str, list[dict[str, float]]] = {}
    logs: dict[str, list[tuple[list[dict], list[dict]]]] = {}
    for run in runs:
        finals.setdefault(run.init, []).append(final_metrics(run))
        logs.setdefault(run.init, []).append(read_run(run))
    cfg = read_config(args.config)
    by_epoch = cfg.train_cfg.get('by_epoch') or 'Epoch' in str(
        cfg.train_cfg.get('type')
    )
    summary = dict(
        command=shlex.join(['python', *sys.argv]),
        config=args.config,
        versions=versions(),
        device=torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else 'cpu',
        seeds=args.seeds,
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
    )
    write_file(
        args.out / 'results.json',
        (json.dumps(summary, indent=1) + '\n').encode(),
    )
    files = [args.out / 'results.json']
    files.append(
        save_figure(
            plot_transfer(
                logs,
                headlines(next(iter(finals.values()))[0]),
                'epoch' if by_epoch else 'iteration',
                Path(args.config).stem,
            ),
            args.out / 'curves.png',
        )
    )
    console.print(metrics_table(finals))
    columns: dict[str, list[np.ndarray]] = {}
    for run in runs[: len(finals)]:
        columns['true'], columns[run.init] = draw_predictions(run, args.images)
    files.append(
        save_figure(
            plot_image_table(columns, f'Seed {args.seeds[0]}'),
            args.out / 'predictions.png',
        )
    )
    for file in files:
        console.print(str(file), highlight=False, soft_wrap=True)


def main() -> None:
    args = parse_args()
    console = Console()
    if not console.is_terminal:
        # a file or a pipe has no width: nothing is wrapped or cut
        console = Console(width=500)
    try:
        compare(args, console)
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error


if __name__ == '__main__':
    main()
