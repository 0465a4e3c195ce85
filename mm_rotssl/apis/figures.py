"""Figures of an evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from sklearn.manifold import TSNE
from torch.nn.functional import normalize
from torch.utils.data import Dataset

from mm_rotssl.evaluation import nearest_neighbors
from mm_rotssl.evaluation.features import Features
from mm_rotssl.utils import algorithm_settings, save_figure
from mm_rotssl.visualization import (
    MetricPanel,
    network_styles,
    plot_embedding,
    plot_metrics,
    plot_neighbors,
    plot_training_curves,
    read_scalars,
    shown_image,
)

from .networks import NETWORKS

NEIGHBORS = 8
MAX_QUERIES = 10
MAX_EMBEDDED = 2000


def draw_curves(
    checkpoint: str | Path, stages: list[str], out: Path
) -> Path | None:
    """Draw the curves of a run, if its log lies beside the checkpoint.

    Args:
        checkpoint (str | Path): Of the run.
        stages (list[str]): Names of the stages.
        out (Path): The folder to draw to.

    Returns:
        Path | None: The figure, if there is a log.
    """
    # the folders are named by their time
    logs = sorted(Path(checkpoint).parent.glob('*/vis_data/scalars.json'))
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
        out / 'training_curves.png',
    )


def draw_stage_accuracy(
    results: Mapping[str, Mapping[str, Any]],
    feats: Features,
    k: int,
    out: Path,
) -> Path:
    """Draw the accuracy by stage, of kNN and of linear probes.

    Args:
        results (Mapping): Network -> figures, see :func:`evaluate`.
        feats (Features): Of any network, for the names.
        k (int): Neighbors of kNN.
        out (Path): The folder to draw to.

    Returns:
        Path: The figure.
    """
    guessing: dict[str | None, float] = {
        stage: 100 / len(feats.classes) for stage in feats.stages
    }
    chance = dict.fromkeys(NETWORKS, guessing)

    def panel(title: str, shots: str | None = None) -> MetricPanel:
        values: dict[str, dict[str | None, list[list[float]]]] = {
            name: {
                stage: [found['linear'][shots] if shots else [found['knn']]]
                for stage, found in zip(
                    feats.stages, results[name]['stages'], strict=True
                )
            }
            for name in NETWORKS
        }
        return MetricPanel(title, values, '%', chance=chance)

    panels = [panel(f'kNN, k={k}')]
    num_draws = 1
    for shots, draws in results[NETWORKS[0]]['stages'][0]['linear'].items():
        unit = 'label' if shots == '1' else 'labels'
        title = f'Linear, {shots} {unit}'
        panels.append(
            panel(title if shots == 'all' else f'{title} a class', shots)
        )
        num_draws = max(num_draws, len(draws))
    spread = (
        f' (mean ± std of {num_draws} draws of labels)'
        if num_draws > 1
        else ''
    )
    untrained, trained = NETWORKS
    return save_figure(
        plot_metrics(
            panels,
            network_styles({untrained: untrained, trained: untrained}),
            feats.stages,
            'Test accuracy by stage, pooled and frozen features' + spread,
        ),
        out / 'accuracy_by_stage.png',
    )


def draw_neighbors(
    feats: Mapping[str, Features],
    stage: int,
    reference: Dataset,
    test: Dataset,
    cfg: Config,
    title: str,
    out: Path,
) -> Path:
    """Draw the nearest neighbors of the first test image of each class.

    Args:
        feats (Mapping[str, Features]): Of each network.
        stage (int): Position of the stage.
        reference (Dataset): The images that are found.
        test (Dataset): The images that are asked for.
        cfg (Config): Says how images are normalized.
        title (str): Of the figure.
        out (Path): The folder to draw to.

    Returns:
        Path: The figure.
    """
    first = feats[NETWORKS[0]]
    labels = first.test_labels.tolist()
    classes = sorted(set(labels))
    classes = classes[:: -(-len(classes) // MAX_QUERIES)]
    queries = [labels.index(label) for label in classes]
    k = min(NEIGHBORS, len(first.reference_labels))
    preprocessor = algorithm_settings(cfg).get('data_preprocessor')
    found: dict[str, list] = {}
    # the trained network above
    for name in reversed(NETWORKS):
        nearest = nearest_neighbors(
            feats[name].reference[stage], feats[name].test[stage][queries], k
        )
        found[name] = [
            [
                (
                    shown_image(reference, i, preprocessor),
                    int(first.reference_labels[i]) == label,
                )
                for i in row
            ]
            for row, label in zip(nearest.tolist(), classes, strict=True)
        ]
    shown_queries = [
        (shown_image(test, i, preprocessor), first.classes[label])
        for i, label in zip(queries, classes, strict=True)
    ]
    return save_figure(
        plot_neighbors(shown_queries, found, title),
        out / 'nearest_neighbors.png',
    )


def draw_embedding(
    feats: Mapping[str, Features],
    stage: int,
    seed: int,
    where: str,
    out: Path,
) -> Path:
    """Draw the t-SNE of normalized test features.

    Args:
        feats (Mapping[str, Features]): Of each network.
        stage (int): Position of the stage.
        seed (int): Of the choice of images, and of t-SNE.
        where (str): The stage in words.
        out (Path): The folder to draw to.

    Returns:
        Path: The figure.
    """
    first = feats[NETWORKS[0]]
    count = len(first.test_labels)
    chosen = np.random.default_rng(seed).permutation(count)[:MAX_EMBEDDED]
    embeddings = {}
    for name in NETWORKS:
        vectors = normalize(feats[name].test[stage][chosen])
        tsne = TSNE(
            perplexity=min(30.0, (len(chosen) - 1) / 3),
            init='pca',
            random_state=seed,
        )
        embeddings[name] = tsne.fit_transform(vectors.double().numpy())
    return save_figure(
        plot_embedding(
            embeddings,
            first.test_labels.numpy()[chosen],
            first.classes,
            f't-SNE of {len(chosen)} test images, colored by class ({where})',
        ),
        out / 'tsne.png',
    )
