"""Measure the speed of mm_rotssl, as ratios within one run.

Absolute figures depend on the machine, ratios much less. Let nothing else
run meanwhile.
"""

import argparse
import json
from pathlib import Path

import torch
from data_path import data_path, worker_bytes
from exemplar import deformation, exemplar_head
from knn_search import knn_search
from measure import MissingPackageError, Result, machine
from memory_bank import memory_bank
from rich.console import Console
from rich.table import Table
from self_classifier import self_classifier_loss
from training_loop import exemplar_loop, training_loop

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    'training_loop',
    'data_path',
    'worker_bytes',
    'memory_bank',
    'exemplar_loop',
    'deformation',
    'exemplar_head',
    'self_classifier_loss',
    'knn_search',
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        '--only',
        nargs='+',
        choices=NAMES,
        default=NAMES,
        help='which to run',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=ROOT / 'benchmarks/out',
        help='folder of the JSON files',
    )
    loop = parser.add_argument_group('training_loop')
    loop.add_argument(
        '--width', type=int, default=192, help='of the network in network'
    )
    loop.add_argument('--batch-size', type=int, default=32)
    loop.add_argument(
        '--iterations', type=int, default=8, help='steps a repetition'
    )
    loop.add_argument('--loop-repetitions', type=int, default=5)
    loop.add_argument(
        '--workers',
        type=int,
        # without a GPU the cores are the device, and workers would take them
        default=2 if torch.cuda.is_available() else 0,
        help='processes that read images',
    )
    path = parser.add_argument_group('data_path and worker_bytes')
    path.add_argument('--images', type=int, default=64, help='in the batch')
    path.add_argument(
        '--quality',
        type=int,
        # about 100 kB, as the files of ImageNet: 138 GB over 1.28 million
        default=98,
        help='of the JPEG files',
    )
    path.add_argument('--path-repetitions', type=int, default=30)
    bank = parser.add_argument_group('memory_bank')
    bank.add_argument(
        '--bank-batch-size', type=int, default=192, help="ImageNet's recipe"
    )
    bank.add_argument('--negatives', type=int, default=4096)
    bank.add_argument(
        '--rows', type=int, default=1_281_167, help='images of ImageNet'
    )
    bank.add_argument(
        '--row-series',
        type=int,
        nargs='+',
        default=[10**5, 10**6, 10**7],
        help='banks whose steps are compared; 10 million rows take 2.6 GB, '
        'and 5 GB more while they are made',
    )
    bank.add_argument('--bank-repetitions', type=int, default=7)
    exemplar = parser.add_argument_group(
        'exemplar_loop (which takes --iterations, --loop-repetitions and '
        '--workers too), deformation and exemplar_head'
    )
    exemplar.add_argument(
        '--arch', default='64c5-128c5-256c5-512f', help='of the network'
    )
    exemplar.add_argument(
        '--patches', type=int, default=128, help='in the batch'
    )
    exemplar.add_argument('--seeds', type=int, default=8000)
    exemplar.add_argument(
        '--num-sampled', type=int, default=4096, help='classes of a step'
    )
    exemplar.add_argument('--channels', type=int, default=512)
    exemplar.add_argument(
        '--seed-series',
        type=int,
        nargs='+',
        default=[5000, 10**4, 3 * 10**4, 10**5, 3 * 10**5],
        help='300,000 seeds take 2 GB',
    )
    exemplar.add_argument('--exemplar-repetitions', type=int, default=7)
    classifier = parser.add_argument_group('self_classifier_loss')
    classifier.add_argument(
        '--loss-batch-size', type=int, default=128, help='images'
    )
    classifier.add_argument(
        '--classes',
        type=int,
        nargs='+',
        default=[1000, 2000, 4000, 8000],
        help='of the heads',
    )
    classifier.add_argument('--views', type=int, default=8)
    classifier.add_argument('--loss-repetitions', type=int, default=5)
    knn = parser.add_argument_group('knn_search')
    knn.add_argument('--queries', type=int, default=10_000)
    knn.add_argument(
        '--reference', type=int, default=50_000, help='vectors to search'
    )
    knn.add_argument(
        '--knn-channels', type=int, default=512, help='of the vectors'
    )
    knn.add_argument(
        '--neighbors',
        type=int,
        nargs='+',
        default=[20, 200],
        help="kNN's usual number, and the largest of its protocol",
    )
    knn.add_argument('--knn-repetitions', type=int, default=5)
    return parser.parse_args()


def run(name: str, args: argparse.Namespace) -> Result:
    """Run one benchmark with the settings of the command line."""
    if name == 'training_loop':
        return training_loop(
            ROOT,
            args.width,
            args.batch_size,
            args.iterations,
            args.loop_repetitions,
            args.workers,
        )
    if name == 'data_path':
        return data_path(
            ROOT, args.images, args.path_repetitions, args.quality
        )
    if name == 'memory_bank':
        return memory_bank(
            args.bank_batch_size,
            args.negatives,
            args.rows,
            args.row_series,
            args.bank_repetitions,
        )
    if name == 'exemplar_loop':
        return exemplar_loop(
            ROOT,
            args.arch,
            args.patches,
            args.seeds,
            args.iterations,
            args.loop_repetitions,
            args.workers,
        )
    if name == 'deformation':
        return deformation(args.patches, args.exemplar_repetitions)
    if name == 'exemplar_head':
        return exemplar_head(
            args.patches,
            args.channels,
            args.num_sampled,
            args.seed_series,
            args.exemplar_repetitions,
        )
    if name == 'self_classifier_loss':
        return self_classifier_loss(
            args.loss_batch_size,
            args.classes,
            args.views,
            args.loss_repetitions,
        )
    if name == 'knn_search':
        return knn_search(
            args.queries,
            args.reference,
            args.knn_channels,
            args.neighbors,
            args.knn_repetitions,
        )
    return worker_bytes(ROOT, args.images)


def main() -> None:
    """Run, write the JSON files and print the table."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    facts = machine()
    console.print(
        f'{facts["cpu"]}, {facts["cores"]} cores, '
        f'{facts["torch_threads"]} threads, '
        f'load average {facts["load_average"]:.1f}, '
        + ', '.join(f'{k} {v}' for k, v in facts['versions'].items())
    )
    table = Table('ratio', 'median', 'min', 'max', 'goal', 'met')
    for name in args.only:
        try:
            with console.status(f'measuring {name}'):
                result = run(name, args)
        except MissingPackageError as missing:
            console.print(f'{name} is left out: {missing}', soft_wrap=True)
            continue
        comparisons = [c.as_dict() for c in result.comparisons]
        content = dict(
            benchmark=name,
            machine=facts,
            settings=result.settings,
            figures=result.figures,
            comparisons=comparisons,
        )
        (args.out / f'{name}.json').write_text(
            json.dumps(content, indent=2) + '\n'
        )
        for found in comparisons:
            table.add_row(
                found['name'],
                *(f'{found[key]:.3f}' for key in ('median', 'min', 'max')),
                f'{found["goal_is"]} {found["goal"]:.4g}',
                '[green]yes' if found['met'] else '[red]no',
            )
        for what, figure in result.figures.items():
            console.print(f'{name}: {what}: {figure:.4g}', highlight=False)
    console.print(table)
    console.print(f'Details: {args.out}/*.json', soft_wrap=True)


if __name__ == '__main__':
    main()
