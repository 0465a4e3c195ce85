"""Compare the classes that a network finds without labels with the real ones.

Measured are, on val_dataloader of the config,

- the classes that the network of the config itself gives (mm_rotssl.
  SelfClassifier and whatever else predicts a label), where it does;
- k-means on the pooled features of every stage, fitted on val_cfg.
  reference_dataloader, which uses no labels either,

of the network with the weights of the checkpoint, and untrained (one
initialization, as the config and --seed make it). k-means is run several
times; mean and sample standard deviation are given. With --hierarchy images
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
from mmengine.logging import MMLogger
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
    read_labeled_config,
    stage_names,
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
LAYOUT: dict[str, Any] = dict(
    title_justify='left',
    box=box.SIMPLE_HEAD,
    show_edge=False,
    pad_edge=False,
    padding=(0, 1, 0, 0),
)


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
        '--max-reference',
        type=int,
        help='fit k-means to only so many images, drawn at random',
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
    for name in ('draws', 'num_clusters', 'max_reference'):
        value = getattr(args, name)
        if value is not None and value < 1:
            option = name.replace('_', '-')
            parser.error(f'--{option} {value} must be positive')
    if args.hierarchy is None and not (args.level is args.ancestor is None):
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


def labeled_features(
    model: nn.Module, loader: DataLoader, key: str
) -> tuple[list[np.ndarray], np.ndarray]:
    """Pooled features of each stage, and classes."""
    try:
        feats, labels = extract_features(model, loader)
    except ValueError as error:
        raise ValueError(f'{key}: {error}') from error
    return [feat.numpy() for feat in feats], labels.numpy()


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
        with console.status(f'{name}: features'):
            train_feats, _ = labeled_features(
                model, bank, 'val_cfg.reference_dataloader'
            )
            test_feats, targets = labeled_features(
                model, test, 'val_dataloader'
            )
            own = own_classes(model, test)
        images = len(train_feats[0])
        count = args.num_clusters or len(np.unique(targets))
        if images < count:
            raise ValueError(
                f'The {images} images that k-means is fitted to make no '
                f'{count} clusters. Add images to '
                f'val_cfg.reference_dataloader, or raise --max-reference, or '
                f'set --num-clusters to {images} '
                'or less.'
            )
        # way of clustering -> clusters of the test images, one array a run
        found = {} if own is None else {'own classes': [own]}
        stages = stage_names(model, len(test_feats))
        for stage, fit, feats in zip(
            stages, train_feats, test_feats, strict=True
        ):
            with console.status(f'{name}: k-means of stage {stage}'):
                found[f'k-means, stage {stage}'] = [
                    KMeans(count, n_init=10, random_state=args.seed + i)
                    .fit(fit)
                    .predict(feats)
                    for i in range(args.draws)
                ]
        results[name] = {
            way: [judge(run, targets, superclasses) for run in runs]
            for way, runs in found.items()
        }
    return results


def judge(
    found: np.ndarray, targets: np.ndarray, superclasses: np.ndarray | None
) -> dict[str, float]:
    """All scores of one clustering."""
    scores = clustering_scores(found, targets)
    if superclasses is not None:
        scores.update(superclass_scores(found, targets, superclasses))
    return scores


def tables(results: dict[str, dict[str, list[dict]]]) -> list[Table]:
    """Mean and sample standard deviation over the runs, one a network."""
    runs = [
        run
        for ways in results.values()
        for runs in ways.values()
        for run in runs
    ]
    hidden = set(SHOWN) - set(runs[0])
    # they differ only where there are more clusters than classes
    if all(run['accuracy'] == run['accuracy_one_to_one'] for run in runs):
        hidden.add('accuracy_one_to_one')
    keys = [key for key in SHOWN if key not in hidden]
    found = []
    for network, ways in results.items():
        table = Table(title=f'{network}: clusters and classes (%)', **LAYOUT)
        table.add_column('clusters by')
        for key in keys:
            table.add_column(SHOWN[key], justify='right')
        for way, draws in ways.items():
            cells = [[draw[key] for draw in draws] for key in keys]
            table.add_row(way, *map(shown, keys, cells))
        found.append(table)
    return found


def shown(key: str, values: list[float]) -> str:
    if key == 'clusters_in_use':
        return f'{statistics.mean(values):.0f}'
    cell = f'{statistics.mean(values):.1f}'
    if len(values) > 1:
        cell += f' ± {statistics.stdev(values):4.1f}'
    return cell


def evaluate(args: argparse.Namespace, console: Console) -> None:
    started = time.perf_counter()
    cfg = read_labeled_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    # of every weight, that it was initialized
    MMLogger.get_current_instance().setLevel('ERROR')
    networks = build_networks(cfg, args.checkpoint, args.seed, args.device)
    bank = build_ordered_dataloader(
        cfg.val_cfg.reference_dataloader, args.max_reference, args.seed
    )
    test = build_ordered_dataloader(cfg.val_dataloader)
    superclasses = None
    if args.hierarchy:
        names = test.dataset.metainfo.get('classes')
        if not names:
            raise ValueError(
                f'--hierarchy {args.hierarchy} groups classes by name, and '
                'the dataset of val_dataloader has no names of classes. Add '
                "metainfo=dict(classes=[...]) to val_dataloader's dataset."
            )
        superclasses, _ = read_hierarchy(
            args.hierarchy, names, args.level, args.ancestor
        )
    results = measure(networks, bank, test, superclasses, args, console)
    summary = dict(
        config=args.config,
        cfg_options=args.cfg_options or {},
        checkpoint=args.checkpoint,
        seed=args.seed,
        command=shlex.join(['python', *sys.argv]),
        versions=versions(),
        device=args.device,
        seconds=round(time.perf_counter() - started, 1),
        reference_images=len(bank.dataset),
        test_images=len(test.dataset),
        hierarchy=args.hierarchy and str(args.hierarchy),
        level=args.level,
        ancestor=args.ancestor,
        results=results,
    )
    write_file(args.out, (json.dumps(summary, indent=2) + '\n').encode())
    for table in tables(results):
        console.print(table)
        console.print()
    console.print(
        f'checkpoint {args.checkpoint}\nnumbers    {args.out}',
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def main() -> None:
    args = parse_args()
    if args.out is None:
        args.out = Path(args.checkpoint).parent / 'clusters.json'
    console = Console()
    if not console.is_terminal:
        # a file or a pipe has no width: nothing is wrapped or cut
        console = Console(width=500)
    try:
        evaluate(args, console)
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error


if __name__ == '__main__':
    main()
