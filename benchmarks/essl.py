r"""Train algorithms plain and with rotation, and compare.

Every config configs/ALGORITHM/ALGORITHM_SIZE.py and its composition
configs/essl/essl-ALGORITHM_SIZE.py is trained once a seed by tools/train.py.
Then kNN accuracy and that of a linear probe, both with all labels of
val_cfg.reference_dataloader on the last stage's pooled features, are measured
beside the untrained network. What is trained already is not trained again, so
an interrupted experiment goes on. Writes summary.json and comparison.png and
prints a table in Markdown.

Two cores, some 90 minutes (CIFAR-10 as JPEG files in folders):

    OMP_NUM_THREADS=1 python benchmarks/essl.py \
        nin-w24_1xb128-6e_cifar10-folder --jobs 2 --out work_dirs/essl-cifar10

A GPU:

    python benchmarks/essl.py resnet18_1xb512-coslr-200e_cifar10 \
        --out work_dirs/essl-resnet18
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from experiment import ROOT, commit, train
from matplotlib.figure import Figure
from measure import machine
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.apis import (
    build_networks,
    build_ordered_dataloader,
    read_labeled_config,
)
from mm_rotssl.cli.common import parse_cfg_options
from mm_rotssl.evaluation import accuracy, knn_classify, linear_probe
from mm_rotssl.evaluation.features import Features
from mm_rotssl.evaluation.report import format_spread, write_summary
from mm_rotssl.utils import save_figure
from mm_rotssl.visualization import plot_comparison, read_scalars

ALGORITHMS = dict(
    moco='MoCo',
    simclr='SimCLR',
    byol='BYOL',
    swav='SwAV',
    simsiam='SimSiam',
    barlowtwins='Barlow Twins',
)
WAYS = {'plain': '{0}/{0}_{1}.py', 'with rotation': 'essl/essl-{0}_{1}.py'}
MEASURES = dict(knn='kNN', linear='linear probe')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'size', help='end of the names of configs, behind the algorithm'
    )
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--algorithms',
        nargs='+',
        choices=list(ALGORITHMS),
        default=list(ALGORITHMS),
    )
    parser.add_argument(
        '--jobs', type=int, default=1, help='trainings at a time'
    )
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        help='replace settings of the configs, also for the measurement',
    )
    parser.add_argument(
        '--train-args',
        nargs=argparse.REMAINDER,
        default=[],
        help='everything behind goes to tools/train.py, e.g. --amp',
    )
    return parser.parse_args()


def config_path(way: str, algorithm: str, size: str) -> Path:
    """Where a config lies."""
    path = ROOT / 'configs' / WAYS[way].format(algorithm, size)
    if not path.is_file():
        raise SystemExit(f'The config "{path}" does not exist.')
    return path


def measure(
    model: nn.Module, reference: DataLoader, test: DataLoader
) -> dict[str, float]:
    """Accuracy in percent."""
    feats = Features.extract(model, reference, test)
    rows, labels = feats.reference[-1], feats.reference_labels
    queries = feats.test[-1]
    return dict(
        knn=accuracy(
            knn_classify(rows, labels, queries).argmax(1), feats.test_labels
        ),
        linear=accuracy(
            linear_probe(rows, labels, queries), feats.test_labels
        ),
    )


def rotation_accuracy(folder: Path) -> float | None:
    """The last that training logged, in percent."""
    lines, _ = read_scalars(sorted(folder.glob('*/vis_data/scalars.json')))
    return lines[-1].get('rotation_accuracy')


def markdown(
    runs: dict[str, dict[str, list[dict]]], untrained: Sequence[dict]
) -> str:
    """The table: mean and sample standard deviation over the seeds."""
    heads = [f'{name}, {way}' for name in MEASURES.values() for way in WAYS]
    lines = [
        f'| algorithm | {" | ".join(heads)} | rotation accuracy |',
        '| --- ' * (len(heads) + 2) + '|',
    ]
    cells = [
        cell
        for key in MEASURES
        for cell in (format_spread([one[key] for one in untrained]), '')
    ]
    lines.append(f'| untrained | {" | ".join(cells)} | |')
    for algorithm, ways in runs.items():
        cells = [
            format_spread([one[key] for one in ways[way]])
            for key in MEASURES
            for way in WAYS
        ]
        cells.append(
            format_spread([one['rotation'] for one in ways[list(WAYS)[1]]])
        )
        lines.append(f'| {ALGORITHMS[algorithm]} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw(
    runs: dict[str, dict[str, list[dict]]],
    untrained: Sequence[dict],
    title: str,
) -> Figure:
    """The image of the table."""
    return plot_comparison(
        {
            name: {
                way: [[one[key] for one in runs[a][way]] for a in runs]
                for way in WAYS
            }
            for key, name in MEASURES.items()
        },
        [ALGORITHMS[algorithm] for algorithm in runs],
        {
            name: [one[key] for one in untrained]
            for key, name in MEASURES.items()
        },
        title,
    )


def main() -> None:
    """Run, write and print."""
    args = parse_args()
    tasks = [
        (seed, algorithm, way)
        for seed in args.seeds
        for algorithm in args.algorithms
        for way in WAYS
    ]
    configs = {
        (algorithm, way): config_path(way, algorithm, args.size)
        for _, algorithm, way in tasks
    }

    def run(task: tuple[int, str, str]) -> Path:
        seed, algorithm, way = task
        config = configs[algorithm, way]
        return train(
            config,
            args.out / config.stem / f'seed{seed}',
            *('--cfg-options', f'randomness.seed={seed}', *args.cfg_options),
            *args.train_args,
        )

    args.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        checkpoints = list(pool.map(run, tasks))

    runs: dict[str, dict[str, list[dict]]] = {
        algorithm: {way: [] for way in WAYS} for algorithm in args.algorithms
    }
    untrained: dict[int, dict[str, float]] = {}
    for task, checkpoint in zip(tasks, checkpoints, strict=True):
        seed, algorithm, way = task
        config = configs[algorithm, way]
        print(f'{config.stem}, seed {seed}', flush=True)
        cfg = read_labeled_config(config, parse_cfg_options(args.cfg_options))
        init_default_scope(cfg.default_scope)
        networks = build_networks(cfg, checkpoint, seed, args.device)
        reference = build_ordered_dataloader(cfg.val_cfg.reference_dataloader)
        test = build_ordered_dataloader(cfg.val_dataloader)
        # all have the same backbone: the first stands for them
        if seed not in untrained:
            untrained[seed] = measure(networks['untrained'], reference, test)
        runs[algorithm][way].append(
            dict(
                seed=seed,
                **measure(networks['trained'], reference, test),
                rotation=rotation_accuracy(checkpoint.parent),
            )
        )
    table = markdown(runs, list(untrained.values()))
    write_summary(
        args.out / 'summary.json',
        commit=commit(),
        machine=machine(),
        seeds=args.seeds,
        table=table,
        untrained=untrained,
        runs=runs,
    )
    title = f'Plain and with rotation, {len(args.seeds)} seeds ({args.size})'
    save_figure(
        draw(runs, list(untrained.values()), title),
        args.out / 'comparison.png',
    )
    print(f'{table}\n\n{args.out}/summary.json, {args.out}/comparison.png')


if __name__ == '__main__':
    main()
