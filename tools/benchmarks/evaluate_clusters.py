"""Compare the classes that a network finds without labels with the real ones.

Measured are, on val_dataloader of the config,

- the classes that the network of the config itself gives (mm_rotssl.
  SelfClassifier and whatever else predicts a label), where it does;
- k-means on the pooled features of every block, fitted on val_cfg.
  bank_dataloader, which uses no labels either,

of the network with the weights of the checkpoint, and untrained (one
initialisation, as the config and --seed make it). k-means is run several
times; mean and sample standard deviation are given. With --hierarchy pictures
are also judged by groups of classes. Everything is written as JSON too.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from rich import box
from rich.console import Console
from rich.table import Table
from sklearn.cluster import KMeans
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.apis import (
    NETWORKS,
    build_networks,
    build_ordered_dataloader,
    extract_features,
    read_labelled_config,
    versions,
)
from mm_rotssl.evaluation import (
    clustering_scores,
    read_hierarchy,
    superclass_scores,
)
from mm_rotssl.utils import write_file

# score -> heading
SHOWN = {
    'nmi': 'NMI',
    'ami': 'AMI',
    'ari': 'ARI',
    'accuracy': 'ACC',
    'accuracy_one_to_one': 'ACC, one to one',
    'clusters_in_use': 'clusters',
    'coarse_accuracy': 'ACC, superclasses',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config the checkpoint was made with')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        type=Path,
        help='the JSON file; by default "clusters.json" beside the checkpoint',
    )
    parser.add_argument(
        '--num-clusters',
        type=int,
        help='of k-means (default: as many as there are classes)',
    )
    parser.add_argument(
        '--draws', type=int, default=3, help='runs of k-means (default: 3)'
    )
    parser.add_argument(
        '--hierarchy',
        type=Path,
        help='file of class,superclass (.csv or .json), or a folder of the '
        'BREEDS files; see docs/self_classifier.md',
    )
    parser.add_argument(
        '--level', type=int, help='depth of the superclasses (BREEDS folder)'
    )
    parser.add_argument(
        '--ancestor', help='only classes below this wnid (BREEDS folder)'
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the untrained network and of k-means (default: 0)',
    )
    parser.add_argument(
        '--max-bank',
        type=int,
        help='fit k-means to only so many pictures, drawn at random',
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
    for name in ('draws', 'num_clusters', 'max_bank'):
        value = getattr(args, name)
        if value is not None and value < 1:
            option = name.replace('_', '-')
            parser.error(f'--{option} {value} must be positive')
    if args.hierarchy is None and (args.level or args.ancestor):
        parser.error('--level and --ancestor belong to --hierarchy')
    return args


@torch.no_grad()
def own_classes(model: nn.Module, loader: DataLoader) -> np.ndarray | None:
    """Classes that the model gives, if it does."""
    if not hasattr(model, 'predict'):
        return None
    found: list[int] = []
    for batch in loader:
        samples = model.val_step(batch)
        if 'pred_label' not in samples[0]:
            return None
        found += [int(sample.pred_label) for sample in samples]
    return np.array(found)


def main() -> None:
    args = parse_args()
    started = time.perf_counter()
    cfg = read_labelled_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    out = args.out or Path(args.checkpoint).parent / 'clusters.json'
    console = Console()

    try:
        bank = build_ordered_dataloader(
            cfg.val_cfg.bank_dataloader, args.max_bank, args.seed
        )
        test = build_ordered_dataloader(cfg.val_dataloader)
        names = test.dataset.metainfo.get('classes') or ()
        superclasses = None
        if args.hierarchy:
            superclasses, _ = read_hierarchy(
                args.hierarchy, names, args.level, args.ancestor
            )
        networks = build_networks(cfg, args.checkpoint, args.seed, args.device)
        results = measure(networks, bank, test, superclasses, args, console)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f'evaluate_clusters.py: {error}') from error

    console.print(table(results))
    summary = dict(
        config=args.config,
        cfg_options=args.cfg_options or {},
        checkpoint=args.checkpoint,
        seed=args.seed,
        command=shlex.join(['python', *sys.argv]),
        versions=versions(),
        device=args.device,
        seconds=round(time.perf_counter() - started, 1),
        hierarchy=args.hierarchy and str(args.hierarchy),
        level=args.level,
        ancestor=args.ancestor,
        results=results,
    )
    write_file(out, (json.dumps(summary, indent=2) + '\n').encode())
    console.print(f'checkpoint {args.checkpoint}\nnumbers    {out}')


def measure(
    networks: dict[str, nn.Module],
    bank: DataLoader,
    test: DataLoader,
    superclasses: np.ndarray | None,
    args: argparse.Namespace,
    console: Console,
) -> dict[str, dict[str, list[dict]]]:
    """Scores of each network: way of clustering -> one dict a run."""
    results: dict[str, dict[str, list[dict]]] = {}
    for name in NETWORKS:
        model = networks[name]
        results[name] = {}
        with console.status(f'{name}: features'):
            train_feats, _ = extract_features(model, bank)
            test_feats, labels = extract_features(model, test)
            own = own_classes(model, test)
        targets = labels.numpy()
        count = args.num_clusters or len(np.unique(targets))
        if len(train_feats[0]) < count:
            raise ValueError(
                f'{len(train_feats[0])} pictures in val_cfg.bank_dataloader '
                f'make no {count} clusters. Set --num-clusters.'
            )

        def judge(
            found: np.ndarray, targets: np.ndarray = targets
        ) -> dict[str, float]:
            scores = clustering_scores(found, targets)
            if superclasses is not None:
                scores.update(superclass_scores(found, targets, superclasses))
            return scores

        if own is not None:
            results[name]['own classes'] = [judge(own)]
        for block, (fit, feats) in enumerate(
            zip(train_feats, test_feats, strict=True), 1
        ):
            with console.status(f'{name}: k-means of block {block}'):
                results[name][f'k-means, block {block}'] = [
                    judge(
                        KMeans(count, n_init=10, random_state=args.seed + i)
                        .fit(fit.numpy())
                        .predict(feats.numpy())
                    )
                    for i in range(args.draws)
                ]
    return results


def table(results: dict[str, dict[str, list[dict]]]) -> Table:
    """Mean and sample standard deviation over the runs."""
    layout: dict[str, Any] = dict(
        title_justify='left', box=box.SIMPLE_HEAD, show_edge=False
    )
    found = Table(title='Clusters and classes (%)', **layout)
    first = next(iter(next(iter(results.values())).values()))[0]
    keys = [key for key in SHOWN if key in first]
    for heading in ('network', 'clusters by', *(SHOWN[key] for key in keys)):
        found.add_column(heading)
    for network, ways in results.items():
        for way, runs in ways.items():
            cells = []
            for key in keys:
                values = [run[key] for run in runs]
                digits = 0 if key == 'clusters_in_use' else 1
                cell = f'{statistics.mean(values):.{digits}f}'
                if len(values) > 1 and digits:
                    cell += f' ± {statistics.stdev(values):.1f}'
                cells.append(cell)
            found.add_row(network, way, *cells)
    return found


if __name__ == '__main__':
    main()
