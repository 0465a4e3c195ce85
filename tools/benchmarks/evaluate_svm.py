"""Measure the features of a checkpoint as Exemplar-CNN's papers do.

The features of all outputs of the backbone, each max-pooled over its four
quadrants and divided by its 99.99th percentile, are classified by a linear
one-against-rest SVM, whose C is chosen on training images that are held
out. The network of the config with the weights of the checkpoint is compared
with the same network untrained. Labels are taken from
val_cfg.reference_dataloader, accuracy is measured on val_dataloader, both of
the config, or of another one (--data) whose model is not looked at.

--protocol sets everything else:

  stl10        the ten predefined folds, 96x96 images
  cifar10      all labels, images enlarged to 64x64
  cifar10-400  ten draws of 400 labels a class, 64x64
  caltech101   ten draws of 30 labels a class, tested on at most 50 others,
               mean over the classes, 150x150, pyramid of 1 + 4 + 16 cells
  all          all labels, images as they are: any labeled folder
  few          ten draws of 10 labels a class, images as they are

Mean and sample standard deviation are over folds or draws; both networks get
the same.
"""

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich import box
from rich.console import Console
from rich.table import Table

from mm_rotssl.apis import (
    NETWORKS,
    build_networks,
    build_ordered_dataloader,
    extract_features,
    read_config,
    read_labeled_config,
    versions,
)
from mm_rotssl.evaluation import (
    choose_c,
    draw_labels,
    mean_and_std,
    percentile_scale,
    svm_classify,
)
from mm_rotssl.ops import pool_cells
from mm_rotssl.utils import write_file

# Of the training images, for the choice of C, where all are trained on.
HELD_OUT = 5


@dataclasses.dataclass
class Protocol:
    """Settings of the authors' code.

    Args:
        c_range: Lowest and highest C that is tried.
        bias: What liblinear's B is.
        trials: Number of Cs that are tried.
        labels: Labels a class in each draw; None: all.
        draws: Number of draws or folds.
        folds: Whether the training set has predefined folds.
        input_size: Side to which images are scaled.
        levels: Cells along a side.
        test_rest: Test on so many others a class of the training set instead
            of the test set.
        by_class: Average over the classes, not the images.
    """

    c_range: tuple[float, float] = (1e-3, 1.0)
    bias: float = 1.0
    trials: int = 50
    labels: int | None = None
    draws: int = 1
    folds: bool = False
    input_size: int | None = None
    levels: tuple[int, ...] = (2,)
    test_rest: int | None = None
    by_class: bool = False


PROTOCOLS = {
    'stl10': Protocol(c_range=(2e-4, 2e-1), bias=5.0, draws=10, folds=True),
    'cifar10': Protocol(input_size=64),
    'cifar10-400': Protocol(input_size=64, labels=400, draws=10),
    'caltech101': Protocol(
        c_range=(2e-3, 1.0),
        trials=30,
        labels=30,
        draws=10,
        input_size=150,
        levels=(1, 2, 4),
        test_rest=50,
        by_class=True,
    ),
    'all': Protocol(),
    'few': Protocol(labels=10, draws=10),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config the checkpoint was made with')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--protocol', choices=list(PROTOCOLS), required=True, help='see above'
    )
    parser.add_argument(
        '--data', help='config of the labeled images; by default `config`'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='JSON file; by default svm_PROTOCOL.json beside the checkpoint',
    )
    parser.add_argument(
        '--labels', type=int, help='labels a class in each draw'
    )
    parser.add_argument('--draws', type=int, help='number of draws or folds')
    parser.add_argument('--trials', type=int, help='number of Cs to try')
    parser.add_argument(
        '--input-size', type=int, help='side that images are scaled to'
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the untrained network, the draws and the Cs (default: 0)',
    )
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where the networks run (default: cuda if there is one)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='replace settings of the config: key=value, with dots for '
        'nested keys',
    )
    args = parser.parse_args()
    for name in ('labels', 'draws', 'trials', 'input_size'):
        value = getattr(args, name)
        if value is not None and value < 1:
            option = name.replace('_', '-')
            parser.error(f'--{option} {value} must be positive')
    if args.out is None:
        args.out = Path(args.checkpoint).parent / f'svm_{args.protocol}.json'
    return args


def protocol_of(args: argparse.Namespace) -> Protocol:
    protocol = PROTOCOLS[args.protocol]
    if args.labels and protocol.folds:
        raise ValueError(
            f'--labels {args.labels}: protocol {args.protocol} has predefined '
            'folds.'
        )
    given = {
        name: getattr(args, name)
        for name in ('labels', 'draws', 'trials', 'input_size')
        if getattr(args, name) is not None
    }
    return dataclasses.replace(protocol, **given)


def training_splits(
    protocol: Protocol, dataset: Any, labels: torch.Tensor, seed: int
) -> list[torch.Tensor]:
    """Places of the training images of each fold or draw."""
    if protocol.folds:
        if not hasattr(dataset, 'folds'):
            raise ValueError(
                f'A {type(dataset).__name__} has no predefined folds: use '
                "mm_rotssl.STL10 with split='train', or --protocol few."
            )
        folds = [torch.from_numpy(fold) for fold in dataset.folds()]
        return folds[: protocol.draws]
    if protocol.labels is None:
        return [torch.arange(len(labels))]
    return [
        draw_labels(labels, protocol.labels, (seed, draw))
        for draw in range(protocol.draws)
    ]


def others(
    chosen: torch.Tensor, labels: torch.Tensor, most: int | None, seed: int
) -> torch.Tensor:
    """Places of images that are not chosen, at most so many a class."""
    free = torch.ones(len(labels), dtype=torch.bool)
    free[chosen] = False
    rng = np.random.default_rng(seed)
    places = []
    for label in labels.unique():
        found = rng.permutation((free & (labels == label)).nonzero()[:, 0])
        places.append(torch.from_numpy(found[:most]))
    return torch.cat(places)


def best_c(
    protocol: Protocol,
    feats: list[torch.Tensor],
    labels: torch.Tensor,
    chosen: torch.Tensor,
    seed: int,
) -> tuple[float, float]:
    """Choose C on the first split: what it leaves over is held out."""
    left = others(chosen, labels, None, seed)
    if not len(left):
        held = torch.zeros(len(labels), dtype=torch.bool)
        for label in labels.unique():
            held[(labels == label).nonzero()[::HELD_OUT, 0]] = True
        chosen, left = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    train, held_out = percentile_scale(
        [stage[chosen] for stage in feats], [stage[left] for stage in feats]
    )
    return choose_c(
        train,
        labels[chosen],
        held_out,
        labels[left],
        protocol.c_range,
        protocol.trials,
        protocol.bias,
        seed,
    )


def accuracy(
    predicted: torch.Tensor, labels: torch.Tensor, by_class: bool
) -> float:
    """Compute it in percent."""
    hits = (predicted == labels).double()
    if by_class:
        hits = torch.stack(
            [hits[labels == label].mean() for label in labels.unique()]
        )
    return 100 * hits.mean().item()


def measure(
    protocol: Protocol,
    splits: list[torch.Tensor],
    bank: tuple[list[torch.Tensor], torch.Tensor],
    test: tuple[list[torch.Tensor], torch.Tensor],
    report: Callable[[str], None],
    seed: int,
) -> dict[str, Any]:
    """Everything that is known of one network."""
    feats, labels = bank
    report('choosing C')
    c, held_out = best_c(protocol, feats, labels, splits[0], seed)
    found = []
    for i, chosen in enumerate(splits):
        report(f'SVM {i + 1} of {len(splits)}')
        queries, answers = test
        if protocol.test_rest is not None:
            rest = others(chosen, labels, protocol.test_rest, seed)
            queries, answers = [stage[rest] for stage in feats], labels[rest]
        train, asked = percentile_scale(
            [stage[chosen] for stage in feats], queries
        )
        predicted = svm_classify(
            train, labels[chosen], asked, c, protocol.bias, seed
        )
        found.append(accuracy(predicted, answers, protocol.by_class))
    return dict(
        c=c,
        held_out_accuracy=100 * held_out,
        accuracy=found,
        features=[stage.size(1) for stage in feats],
    )


def evaluate(args: argparse.Namespace, console: Console) -> None:
    start = time.monotonic()
    protocol = protocol_of(args)
    if args.data:
        cfg = read_config(args.config, args.cfg_options)
        data = read_labeled_config(args.data)
    else:
        cfg = data = read_labeled_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    # of every weight, that it was initialized
    MMLogger.get_current_instance().setLevel('ERROR')
    networks = build_networks(cfg, args.checkpoint, args.seed, args.device)
    bank = build_ordered_dataloader(data.val_cfg.reference_dataloader)
    test = build_ordered_dataloader(data.val_dataloader)

    def extract(model: torch.nn.Module, loader: Any) -> tuple:
        return extract_features(
            model,
            loader,
            lambda feats: pool_cells(feats, protocol.levels),
            protocol.input_size,
        )

    results: dict[str, dict] = {}
    splits: list[torch.Tensor] = []
    for name in NETWORKS:

        def report(message: str, name: str = name) -> None:
            console.print(f'{name}: {message}', highlight=False)

        report('features')
        bank_feats = extract(networks[name], bank)
        splits = splits or training_splits(
            protocol, bank.dataset, bank_feats[1], args.seed
        )
        test_feats = (
            bank_feats
            if protocol.test_rest is not None
            else extract(networks[name], test)
        )
        results[name] = measure(
            protocol, splits, bank_feats, test_feats, report, args.seed
        )
    summary = dict(
        config=args.config,
        data=args.data or args.config,
        cfg_options=args.cfg_options or {},
        checkpoint=args.checkpoint,
        protocol=args.protocol,
        settings=dataclasses.asdict(protocol),
        seed=args.seed,
        command=shlex.join([sys.executable, *sys.argv]),
        versions=versions(),
        device=args.device,
        seconds=round(time.monotonic() - start, 1),
        training_images=len(splits[0]),
        results=results,
    )
    write_file(args.out, (json.dumps(summary, indent=2) + '\n').encode())

    table = Table(
        title=f'Test accuracy of a linear SVM (%), {args.protocol}: '
        f'{len(splits[0])} labels, {len(splits)} times',
        title_justify='left',
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column('network')
    for column in ('accuracy', 'held out', 'C', 'features'):
        table.add_column(column, justify='right')
    for name in NETWORKS:
        found = results[name]
        mean, spread = mean_and_std(found['accuracy'])
        table.add_row(
            name,
            f'{mean:.1f}' if spread is None else f'{mean:.1f} ± {spread:.1f}',
            f'{found["held_out_accuracy"]:.1f}',
            f'{found["c"]:.2g}',
            str(sum(found['features'])),
        )
    console.print(table)
    console.print(f'numbers    {args.out}', highlight=False, soft_wrap=True)


def main() -> None:
    args = parse_args()
    console = Console()
    if not console.is_terminal:
        # a file or a pipe has no width: nothing is wrapped or cut
        console = Console(width=500)
    try:
        evaluate(args, console)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f'Error: {error}') from error


if __name__ == '__main__':
    main()
