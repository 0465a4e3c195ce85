r"""Train a config with several seeds, and report on them.

For each seed: tools/train.py, then the probes, if any; for all of them one
report, `mm-rotssl evaluate` (or, with --svm, tools/evaluation/evaluate_svm.py
for each). What is already there is not done again, so an interrupted
experiment goes on. Writes summary.json and prints a table in Markdown, mean
and sample standard deviation over the seeds.

Two cores, some 20 minutes a seed (CIFAR-10 as JPEG files in folders):

    python benchmarks/experiment.py \
        configs/rotnet/rotnet_nin-w24_1xb64-coslr-8e_cifar10-folder.py \
        --out work_dirs/cifar10-small

The paper's table, for a GPU:

    python benchmarks/experiment.py \
        configs/rotnet/rotnet_nin_1xb128-steplr-200e_cifar10.py \
        --out work_dirs/cifar10-full --probes configs/rotnet/probes/nin-*.py
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import machine
from mmengine.config import Config

from mm_rotssl.apis import NETWORKS
from mm_rotssl.evaluation.report import format_spread, write_summary

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--probes',
        type=Path,
        nargs='*',
        default=[],
        help='configs of classifiers on the frozen backbone; their accuracy '
        'after the last epoch is reported',
    )
    parser.add_argument(
        '--evaluate',
        default='',
        help='arguments of mm-rotssl evaluate',
    )
    parser.add_argument(
        '--svm',
        help='arguments of tools/evaluation/evaluate_svm.py, which then '
        'takes the place of the report',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        help='replace settings of the pre-training config and of its '
        'evaluation',
    )
    parser.add_argument(
        '--train-args',
        nargs=argparse.REMAINDER,
        default=[],
        help='everything behind goes to tools/train.py, e.g. --amp',
    )
    return parser.parse_args()


def tool(name: str, *arguments: Any) -> None:
    """Run one of the tools; its failure ends the experiment."""
    command = [sys.executable, str(ROOT / 'tools' / name)]
    command += [str(argument) for argument in arguments]
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True)


def train(config: Path, folder: Path, *arguments: Any) -> Path:
    """Train unless it is done.

    Returns:
        The checkpoint of the last epoch.
    """
    epochs = Config.fromfile(config).train_cfg.max_epochs
    for argument in map(str, arguments):
        if argument.startswith('train_cfg.max_epochs='):
            epochs = int(argument.partition('=')[2])
    checkpoint = folder / f'epoch_{epochs}.pth'
    if not checkpoint.is_file():
        tool('train.py', config, '--work-dir', folder, '--resume', *arguments)
    return checkpoint


def last_accuracy(folder: Path) -> float:
    """Top-1 accuracy of the last validation in a probe's log."""
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    lines = [
        json.loads(line)
        for log in logs
        for line in log.read_text().split('\n')
        if 'accuracy/top1' in line
    ]
    return lines[-1]['accuracy/top1']


def seed_results(args: argparse.Namespace, seed: int) -> dict:
    """What is measured of one seed alone."""
    folder = args.out / f'seed{seed}'
    options = [f'randomness.seed={seed}', *args.cfg_options]
    checkpoint = train(
        args.config, folder, '--cfg-options', *options, *args.train_args
    )
    found: dict[str, Any] = {}
    if args.svm:
        results = folder / 'svm.json'
        if not results.is_file():
            tool(
                'evaluation/evaluate_svm.py',
                *(args.config, checkpoint, '--seed', seed),
                *('--out', results, *shlex.split(args.svm)),
                *(args.cfg_options and ['--cfg-options', *args.cfg_options]),
            )
        found = json.loads(results.read_text())
    found['probes'] = {}
    for probe in args.probes:
        # not beside the runs, which the report is on
        work_dir = args.out / 'probes' / folder.name / probe.stem
        train(
            probe,
            work_dir,
            *('--cfg-options', f'randomness.seed={seed}'),
            f'model.backbone.init_cfg.checkpoint={checkpoint}',
        )
        found['probes'][probe.stem] = last_accuracy(work_dir)
    return found


def report_markdown(args: argparse.Namespace) -> str:
    """The tables of the report on all seeds."""
    out = args.out / 'report'
    tool(
        'evaluation/evaluate.py',
        *(args.config, args.out, '--out', out, *shlex.split(args.evaluate)),
        *(args.cfg_options and ['--cfg-options', *args.cfg_options]),
    )
    return (out / 'report.md').read_text()


def svm_markdown(runs: list[dict]) -> str:
    """The table of --svm."""
    lines = ['| network | linear SVM | C |', '| --- | --- | --- |']
    for network in NETWORKS:
        found = [run['results'][network] for run in runs]
        accuracy = format_spread(
            [statistics.mean(f['accuracy']) for f in found]
        )
        values = ', '.join(f'{f["c"]:.2g}' for f in found)
        lines.append(f'| {network} | {accuracy} | {values} |')
    return '\n'.join(lines)


def commit() -> str:
    """Name the commit of the checkout."""
    return subprocess.run(
        ['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def main() -> None:
    """Run, write and print."""
    args = parse_args()
    if not args.config.is_file():
        raise SystemExit(f'The config "{args.config}" does not exist.')
    args.out.mkdir(parents=True, exist_ok=True)
    runs = [seed_results(args, seed) for seed in args.seeds]
    table = svm_markdown(runs) if args.svm else report_markdown(args)
    for probe in runs[0]['probes']:
        accuracy = format_spread([run['probes'][probe] for run in runs])
        table += f'\n\n{probe}: {accuracy} %'
    path = args.out / 'summary.json'
    write_summary(
        path,
        commit=commit(),
        machine=machine(),
        seeds=args.seeds,
        table=table,
        runs=runs,
    )
    print(table)
    print(f'\n{path}')


if __name__ == '__main__':
    main()
