"""Measure how good the features of a checkpoint are, stage by stage.

The network of the config, with the weights of the checkpoint, is compared
with the same network untrained (one initialization, as the config and --seed
make it). Labels are taken from val_cfg.reference_dataloader, accuracy is
measured on val_dataloader, both of the config:

- rotation accuracy, where the algorithm predicts rotations;
- for every stage kNN accuracy and a linear probe on the pooled features;
- fine-tuning the whole backbone.

Where only some labels are used, mean and sample standard deviation over
several draws are given; both networks get the same draws. Everything is also
written as JSON and drawn.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table
from sklearn.manifold import TSNE
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

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
    FINE_TUNING,
    RotationAccuracy,
    draw_labels,
    fine_tune,
    knn_classify,
    linear_probe,
    mean_and_std,
    nearest_neighbors,
)
from mm_rotssl.ops import pool_features
from mm_rotssl.utils import algorithm_settings, save_figure, write_file
from mm_rotssl.visualization import (
    plot_embedding,
    plot_neighbors,
    plot_stage_accuracy,
    plot_training_curves,
    read_scalars,
    shown_image,
)

KNN = dict(k=20, temperature=0.07)
NEIGHBORS = 8
MAX_QUERIES = 10
# the default table fits into 80 columns
LAYOUT: dict[str, Any] = dict(
    title_justify='left',
    box=box.SIMPLE_HEAD,
    show_edge=False,
    pad_edge=False,
)
MAX_EMBEDDED = 2000
BANK, TEST = 'val_cfg.reference_dataloader', 'val_dataloader'


def number_of_labels(text: str) -> int | str:
    if text == 'all' or (text.isdecimal() and int(text) > 0):
        return text if text == 'all' else int(text)
    raise argparse.ArgumentTypeError(f'"{text}" is no positive number or all')


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
        help='folder of results.json and the images; by default "features" '
        'beside the checkpoint',
    )
    parser.add_argument(
        '--draws', type=int, default=5, help='draws of labels (default: 5)'
    )
    parser.add_argument(
        '--shots',
        nargs='+',
        type=number_of_labels,
        default=[1, 5, 10, 'all'],
        help='labels a class of the linear probe (default: 1 5 10 all)',
    )
    parser.add_argument(
        '--finetune-shots',
        type=int,
        default=10,
        help='labels a class of fine-tuning; 0 leaves it out (default: 10)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the untrained network, the draws and fine-tuning '
        '(default: 0)',
    )
    parser.add_argument(
        '--max-reference',
        type=int,
        help='use only so many labeled images, drawn at random',
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
    if args.draws < 1:
        parser.error(f'--draws {args.draws} must be positive')
    if args.finetune_shots < 0:
        parser.error(f'--finetune-shots {args.finetune_shots} is negative')
    if args.max_reference is not None and args.max_reference < 1:
        parser.error(f'--max-reference {args.max_reference} must be positive')
    args.shots = list(dict.fromkeys(args.shots))
    return args


def class_names(dataset: Dataset, count: int) -> list[str]:
    dataset = dataset.dataset if isinstance(dataset, Subset) else dataset
    names = getattr(dataset, 'metainfo', {}).get('classes') or ()
    return [str(names[i]) if i < len(names) else str(i) for i in range(count)]


def per_cent(predicted: torch.Tensor, labels: torch.Tensor) -> float:
    return 100 * (predicted == labels).double().mean().item()


def rotation_accuracy(model: nn.Module, loader: DataLoader) -> float | None:
    """Measure it where the algorithm predicts rotations."""
    metric = RotationAccuracy()
    for batch in loader if hasattr(model, 'predict') else ():
        with torch.no_grad():
            samples = [sample.to_dict() for sample in model.val_step(batch)]
        if 'rotation_scores' not in samples[0]:
            return None
        metric.process(batch, samples)
    if not metric.results:
        return None
    return metric.evaluate(len(loader.dataset))['rotation/accuracy']


class LastBlock(nn.Module):
    """A backbone that gives the pooled vector of its last stage."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map images to vectors (N, C)."""
        return pool_features(self.backbone(inputs))[-1]


def fine_tuned_accuracy(
    model: nn.Module,
    bank: DataLoader,
    test: DataLoader,
    chosen: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    seed: int,
) -> float:
    batch = bank.collate_fn([bank.dataset[i] for i in chosen.tolist()])
    inputs = model.data_preprocessor(batch, False)['inputs']
    tuned = fine_tune(
        LastBlock(model.backbone),
        inputs,
        labels.to(inputs.device),
        num_classes,
        seed,
    )
    hits = []
    for batch in test:
        data = model.data_preprocessor(batch, False)
        with torch.no_grad():
            predicted = tuned(data['inputs']).argmax(1).tolist()
        hits += [
            guess == int(sample.gt_label)
            for guess, sample in zip(
                predicted, data['data_samples'], strict=True
            )
        ]
    return 100 * sum(hits) / len(hits)


class Features:
    """Pooled features of bank and test part, of each network and stage."""

    def __init__(
        self, networks: dict, bank: DataLoader, test: DataLoader
    ) -> None:
        self.bank: dict[str, list[torch.Tensor]] = {}
        self.test: dict[str, list[torch.Tensor]] = {}
        for name, model in networks.items():
            for key, loader, feats in (
                (BANK, bank, self.bank),
                (TEST, test, self.test),
            ):
                try:
                    feats[name], labels = extract_features(model, loader)
                except ValueError as error:
                    raise ValueError(f'{key}: {error}') from error
                if key == BANK:
                    self.bank_labels = labels
                else:
                    self.test_labels = labels
        self.num_stages = len(self.bank[NETWORKS[0]])
        labels = torch.cat([self.bank_labels, self.test_labels])
        self.num_classes = int(labels.max()) + 1

    def knn_accuracy(self, network: str, stage: int) -> float:
        """Let the whole bank vote."""
        scores = knn_classify(
            self.bank[network][stage],
            self.bank_labels,
            self.test[network][stage],
            **KNN,
        )
        return per_cent(scores.argmax(1), self.test_labels)

    def linear_accuracy(
        self, network: str, stage: int, chosen: torch.Tensor
    ) -> float:
        """Use only the chosen labels."""
        predicted = linear_probe(
            self.bank[network][stage][chosen],
            self.bank_labels[chosen],
            self.test[network][stage],
        )
        return per_cent(predicted, self.test_labels)


def draw_all(
    labels: torch.Tensor, names: list[str], args: argparse.Namespace
) -> dict[int | str, list[torch.Tensor]]:
    """All draws of labels: number a class -> positions of each draw."""
    draws: dict[int | str, list[torch.Tensor]] = {}
    counts = labels.bincount()
    for shots in sorted({*args.shots, args.finetune_shots} - {'all', 0}):
        for label in labels.unique().tolist():
            if counts[label] < shots:
                raise ValueError(
                    f'{shots} labels a class were asked for (--shots, '
                    f'--finetune-shots), but class "{names[label]}" has only '
                    f'{counts[label]} images in {BANK}. Ask for fewer or '
                    'add labeled images.'
                )
        draws[shots] = [
            draw_labels(labels, shots, (args.seed, draw))
            for draw in range(args.draws)
        ]
    draws['all'] = [torch.arange(len(labels))]
    return draws


def measure(
    networks: dict[str, nn.Module],
    bank: DataLoader,
    test: DataLoader,
    feats: Features,
    draws: dict[int | str, list[torch.Tensor]],
    args: argparse.Namespace,
    report: Callable[[str], None],
) -> dict[str, dict]:
    """Everything that goes into the table, in percent."""
    results: dict[str, dict] = {}
    for name, model in networks.items():
        report(f'{name}: rotation accuracy, kNN and linear probes')
        results[name] = {
            'rotation_accuracy': rotation_accuracy(model, test),
            'stages': [
                {
                    'knn': feats.knn_accuracy(name, stage),
                    'linear': {
                        str(shots): [
                            feats.linear_accuracy(name, stage, chosen)
                            for chosen in draws[shots]
                        ]
                        for shots in args.shots
                    },
                }
                for stage in range(feats.num_stages)
            ],
            'fine_tuned': [],
        }
    for i in range(args.draws if args.finetune_shots else 0):
        report(f'fine-tuning, draw {i + 1} of {args.draws}')
        chosen = draws[args.finetune_shots][i]
        for name, model in networks.items():
            results[name]['fine_tuned'].append(
                fine_tuned_accuracy(
                    model,
                    bank,
                    test,
                    chosen,
                    feats.bank_labels[chosen],
                    feats.num_classes,
                    args.seed + i,
                )
            )
    return results


def shown(values: Sequence[float]) -> str:
    mean, spread = mean_and_std(values)
    return f'{mean:.1f}' if spread is None else f'{mean:.1f} ± {spread:4.1f}'


def add_row(table: Table, name: str, title: str, cells: Sequence[str]) -> None:
    style = 'bold' if name == 'trained' else None
    table.add_row(title, name, *cells, style=style)


def tables(
    results: dict[str, dict], stages: list[str], args: argparse.Namespace
) -> list[Table]:
    by_stage = Table(
        title='Test accuracy by stage (%), frozen features: kNN with all '
        'labels,\nand a linear probe with so many labels a class',
        **LAYOUT,
    )
    by_stage.add_column('stage')
    by_stage.add_column('network')
    by_stage.add_column('kNN', justify='right')
    for shots in args.shots:
        unit = 'label' if shots == 1 else 'labels'
        by_stage.add_column(f'{shots} {unit}', justify='right')
    for i, stage in enumerate(stages):
        for name in NETWORKS:
            values = results[name]['stages'][i]
            cells = [
                f'{values["knn"]:.1f}',
                *(shown(values['linear'][str(n)]) for n in args.shots),
            ]
            add_row(
                by_stage, name, stage if name == NETWORKS[0] else '', cells
            )
        by_stage.add_section()

    whole = Table(title='Test accuracy of the whole network (%)', **LAYOUT)
    whole.add_column('')
    for name in NETWORKS:
        whole.add_column(name, justify='right')
    if results['trained']['rotation_accuracy'] is not None:
        whole.add_row(
            'rotation',
            *(f'{results[n]["rotation_accuracy"]:.1f}' for n in NETWORKS),
        )
    if args.finetune_shots:
        whole.add_row(
            f'class, fine-tuned with {args.finetune_shots} labels a class',
            *(shown(results[n]['fine_tuned']) for n in NETWORKS),
        )
    return [by_stage, whole] if whole.row_count else [by_stage]


def remark(results: dict[str, dict], stages: list[str]) -> str | None:
    """Explain a last stage that got worse while an earlier one gained."""
    untrained, trained = (
        [stage['knn'] for stage in results[name]['stages']]
        for name in NETWORKS
    )
    gains = [t - u for t, u in zip(trained, untrained, strict=True)]
    best = max(range(len(gains)), key=gains.__getitem__)
    if gains[-1] >= 0 or gains[best] <= 0:
        return None
    return (
        f'Stage {stages[-1]} has lost kNN accuracy ({untrained[-1]:.1f} to '
        f'{trained[-1]:.1f} %) while stage {stages[best]} gained '
        f'({untrained[best]:.1f} to {trained[best]:.1f} %): the last stage '
        'specializes in the pretext task. That is the method, not a defect; '
        'take features from an earlier stage.'
    )


def draw_neighbors(
    feats: Features,
    stage: int,
    bank: Dataset,
    test: Dataset,
    names: list[str],
    cfg: Config,
) -> tuple[list, dict[str, list]]:
    """Queries and neighbors of the first test image of each class."""
    labels = feats.test_labels.tolist()
    classes = sorted(set(labels))
    preprocessor = algorithm_settings(cfg).get('data_preprocessor')
    step = max(1, len(classes) / MAX_QUERIES)
    classes = classes[:: int(np.ceil(step))]
    queries = [labels.index(label) for label in classes]
    k = min(NEIGHBORS, len(feats.bank_labels))
    found: dict[str, list] = {}
    # the trained network above
    for name in reversed(NETWORKS):
        nearest = nearest_neighbors(
            feats.bank[name][stage], feats.test[name][stage][queries], k
        )
        found[name] = [
            [
                (
                    shown_image(bank, i, preprocessor),
                    int(feats.bank_labels[i]) == label,
                )
                for i in row
            ]
            for row, label in zip(nearest.tolist(), classes, strict=True)
        ]
    shown_queries = [
        (shown_image(test, i, preprocessor), names[label])
        for i, label in zip(queries, classes, strict=True)
    ]
    return shown_queries, found


def embed(
    feats: Features, stage: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """t-SNE of the normalized test features."""
    count = len(feats.test_labels)
    chosen = np.random.default_rng(seed).permutation(count)[:MAX_EMBEDDED]
    embeddings = {}
    for name in NETWORKS:
        vectors = nn.functional.normalize(feats.test[name][stage][chosen])
        tsne = TSNE(
            perplexity=min(30.0, (len(chosen) - 1) / 3),
            init='pca',
            random_state=seed,
        )
        embeddings[name] = tsne.fit_transform(vectors.double().numpy())
    return embeddings, feats.test_labels.numpy()[chosen]


def draw_figures(
    results: dict[str, dict],
    feats: Features,
    stages: list[str],
    bank: Dataset,
    test: Dataset,
    cfg: Config,
    args: argparse.Namespace,
) -> list[Path]:
    names = class_names(test, feats.num_classes)
    panels = {
        f'kNN, k={KNN["k"]}': {
            name: [[stage['knn']] for stage in results[name]['stages']]
            for name in NETWORKS
        }
    }
    for shots in args.shots:
        unit = 'label' if shots == 1 else 'labels'
        title = f'Linear, {shots} {unit}'
        panels[title if shots == 'all' else f'{title} a class'] = {
            name: [
                stage['linear'][str(shots)]
                for stage in results[name]['stages']
            ]
            for name in NETWORKS
        }
    spread = (
        f' (mean ± std of {args.draws} draws of labels)'
        if args.draws > 1
        else ''
    )
    paths = [
        save_figure(
            plot_stage_accuracy(
                panels,
                stages,
                100 / feats.num_classes,
                'Accuracy by stage: what the pooled, frozen features tell '
                'about the class' + spread,
            ),
            args.out / 'accuracy_by_stage.png',
        )
    ]
    knn = [stage['knn'] for stage in results['trained']['stages']]
    best = max(range(len(knn)), key=knn.__getitem__)
    where = f'stage {stages[best]}, the best of the trained network by kNN'
    queries, found = draw_neighbors(feats, best, bank, test, names, cfg)
    paths.append(
        save_figure(
            plot_neighbors(queries, found, f'Nearest neighbors ({where})'),
            args.out / 'nearest_neighbors.png',
        )
    )
    embeddings, labels = embed(feats, best, args.seed)
    paths.append(
        save_figure(
            plot_embedding(
                embeddings,
                labels,
                names,
                f't-SNE of {len(labels)} test images, colored by class '
                f'({where})',
            ),
            args.out / 'tsne.png',
        )
    )
    return paths


def draw_curves(stages: list[str], args: argparse.Namespace) -> Path | None:
    """The curves of the run, if its log lies beside the checkpoint."""
    folder = Path(args.checkpoint).parent
    # the folders are named by their time
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    train, val = read_scalars(logs)
    if not train:
        return None
    return save_figure(
        plot_training_curves(
            train,
            val,
            stages,
            'Training: the pretext task, and what the pooled features tell '
            'about the class',
        ),
        args.out / 'training_curves.png',
    )


def evaluate(args: argparse.Namespace, console: Console) -> None:
    start = time.monotonic()
    status = Status('', console=console)

    def report(message: str) -> None:
        if console.is_terminal:
            status.update(message)
        else:
            console.print(message, highlight=False)

    cfg = read_labeled_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    # of every weight, that it was initialized
    MMLogger.get_current_instance().setLevel('ERROR')
    with status:
        networks = build_networks(cfg, args.checkpoint, args.seed, args.device)
        bank = build_ordered_dataloader(
            cfg.val_cfg.reference_dataloader, args.max_reference, args.seed
        )
        test = build_ordered_dataloader(cfg.val_dataloader)
        report(
            f'features of {len(bank.dataset)} labeled and '
            f'{len(test.dataset)} test images'
        )
        feats = Features(networks, bank, test)
        stages = stage_names(networks['trained'], feats.num_stages)
        names = class_names(bank.dataset, feats.num_classes)
        draws = draw_all(feats.bank_labels, names, args)
        results = measure(networks, bank, test, feats, draws, args, report)
        report('images')
        curves = draw_curves(stages, args)
        images = draw_figures(
            results, feats, stages, bank.dataset, test.dataset, cfg, args
        )
    if curves:
        images.insert(0, curves)
    note = remark(results, stages)
    summary = {
        'config': args.config,
        'cfg_options': args.cfg_options or {},
        'checkpoint': args.checkpoint,
        'seed': args.seed,
        'command': shlex.join([sys.executable, *sys.argv]),
        'versions': versions(),
        'device': args.device,
        'seconds': round(time.monotonic() - start, 1),
        'reference_images': len(bank.dataset),
        'test_images': len(test.dataset),
        'classes': names,
        'draws': args.draws,
        'knn': KNN,
        'linear_probe': 'StandardScaler, LogisticRegression(C=1.0)',
        'fine_tuning': {'labels': args.finetune_shots, **FINE_TUNING},
        'stages': stages,
        'results': results,
        'remark': note,
        'figures': [path.name for path in images],
    }
    path = args.out / 'results.json'
    write_file(path, (json.dumps(summary, indent=2) + '\n').encode())

    for table in tables(results, stages, args):
        console.print(table)
        console.print()
    if note:
        console.print(note, highlight=False)
    if curves is None:
        console.print(
            'No training curves: no */vis_data/scalars.json beside the '
            'checkpoint.',
            highlight=False,
        )
    for title, file in (
        ('checkpoint', args.checkpoint),
        ('numbers', path),
        *(('image', image) for image in images),
    ):
        console.print(
            f'{title:11}{file}', highlight=False, soft_wrap=True, markup=False
        )


def main() -> None:
    args = parse_args()
    if args.out is None:
        args.out = Path(args.checkpoint).parent / 'features'
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
