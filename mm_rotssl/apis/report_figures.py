"""Figures of a report."""

import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import confusion_matrix
from torch import nn

from mm_rotssl.evaluation.feature_store import (
    EMBEDDING,
    backbone_outputs,
    stage_names,
)
from mm_rotssl.evaluation.functional import knn_classify, search_neighbors
from mm_rotssl.evaluation.subject import Subject
from mm_rotssl.visualization import (
    MetricPanel,
    plot_attention,
    plot_confusion,
    plot_embedding,
    plot_image_groups,
    plot_metrics,
    plot_neighbors,
    plot_pairs,
    plot_training_curves,
    read_scalars,
    stage_label,
)

from .duplicates import Duplicate
from .report_drawing import Drawing, Report, finite_runs

# t-SNE of so many takes ten seconds a network
MAX_EMBEDDED = 2000
# what t-SNE's authors reduce vectors to by PCA (van der Maaten and Hinton,
# JMLR 2008, section 4.2: 30; in their later code 50)
EMBEDDED_CHANNELS = 50
NUM_NEIGHBORS = 8
# of neighbors on a page
MAX_ROWS = 16
CONFUSION_K = 20
MAX_CLUSTERS, CLUSTER_IMAGES = 20, 9
MAX_FILTERS = 64
MAX_PAIRS = 10
# for the third convolution, the deepest that the paper shows
ATTENTION_POWER = 4
MARKS = (
    'Gray, dashed and hollow: the untrained network. Bars: ± one sample '
    'standard deviation, of training runs if there are several, else of '
    'draws. The axes are fitted to the values and do not begin at 0.'
)


def draw_report_figures(
    report: Mapping[str, Any],
    subjects: Mapping[str, Subject],
    out: str | Path,
    duplicates: Sequence[Duplicate] = (),
    progress: Report | None = None,
) -> list[dict[str, Any]]:
    """Draw all that a report and its images give something for.

    Args:
        report (Mapping[str, Any]): What report.json holds: ``entries``,
            ``protocols`` and ``measurements``.
        subjects (Mapping[str, Subject]): Name of an entry -> its first run.
            All have the same images; entries without one are left out.
        out (str | Path): Folder of the figures. Each is written as PNG, and
            as SVG of the same name but for the ending, on white.
        duplicates (Sequence[Duplicate]): See `find_duplicates`. Defaults to
            none.
        progress (Callable, optional): Is told what is drawn. Defaults to
            None.

    Returns:
        list[dict[str, Any]]: Of each figure ``file``, the name of the PNG;
        ``title``; ``about``, how to read it; ``protocol``, the name of that
        which it belongs to, or None.
    """
    drawing = Drawing(report, subjects, Path(out), progress)
    draw_metrics(drawing)
    draw_training(drawing)
    draw_embedding(drawing)
    draw_neighbors(drawing)
    draw_clusters(drawing)
    draw_confusion(drawing)
    draw_attention(drawing)
    draw_filters(drawing)
    draw_duplicates(drawing, duplicates)
    return drawing.figures


def draw_metrics(drawing: Drawing) -> None:
    """Draw what each protocol measured."""
    for protocol in drawing.report['protocols']:
        name = protocol['name']
        found = [
            measured
            for measured in drawing.report['measurements']
            if measured['protocol'] == name
            and measured['entry'] in drawing.entries
        ]
        if not found:
            continue
        drawing.say(protocol['title'])
        if name == 'invariance':
            _draw_invariance(drawing, protocol, found)
            continue
        metrics = protocol['metrics']
        panels = [
            _panel(
                metric['title'],
                metric,
                [m for m in found if m['metric'] == key],
                lambda measured: measured['stage'],
            )
            for key, metric in metrics.items()
        ]
        drawing.save(
            plot_metrics(
                [panel for panel in panels if panel.values],
                drawing.styles,
                _all_stages(drawing),
                protocol['title'],
            ),
            f'metrics_{name}',
            f'{protocol["title"]} by stage',
            MARKS,
            name,
        )


def _panel(
    title: str,
    metric: Mapping[str, Any],
    found: Iterable[Mapping[str, Any]],
    place: Callable[[Mapping[str, Any]], str | None],
) -> MetricPanel:
    values: dict[str, dict[str | None, list[list[float]]]] = {}
    chance: dict[str, dict[str | None, float]] = {}
    for measured in found:
        entry = measured['entry']
        runs = finite_runs(measured['runs'])
        if not runs:
            continue
        values.setdefault(entry, {})[place(measured)] = runs
        if measured['chance'] is not None:
            chance.setdefault(entry, {})[place(measured)] = measured['chance']
    return MetricPanel(title, values, metric['unit'], metric['better'], chance)


def _all_stages(drawing: Drawing) -> list[str]:
    """The stages of all networks, in order."""
    names = [
        stage
        for entry in drawing.entries.values()
        for stage in entry['stages']
    ]
    found = list(dict.fromkeys(names))
    if all(stage.isdecimal() for stage in found if stage != EMBEDDING):
        found.sort(key=lambda stage: stage != EMBEDDING and int(stage))
    return [s for s in found if s != EMBEDDING] + [
        s for s in found if s == EMBEDDING
    ]


def _draw_invariance(
    drawing: Drawing,
    protocol: Mapping[str, Any],
    found: Sequence[Mapping[str, Any]],
) -> None:
    """Draw what changes with the angle, a row of panels a stage."""
    # 'cosine_90' -> cosine, 90
    keys = {
        key: match.groups()
        for key in protocol['metrics']
        if (match := re.fullmatch(r'(.+)_(\d+)', key))
    }
    angles = sorted({angle for _, angle in keys.values()}, key=int)
    panels = []
    for stage in [*_all_stages(drawing), None]:
        for quantity in dict.fromkeys(name for name, _ in keys.values()):
            of_quantity = [k for k in keys if keys[k][0] == quantity]
            metric = protocol['metrics'][of_quantity[0]]
            # 'Cosine, 90°'
            title = metric['title'].rpartition(',')[0] or metric['title']
            panel = _panel(
                f'{title}, {stage_label(stage)}',
                metric,
                [
                    m
                    for m in found
                    if m['stage'] == stage and m['metric'] in of_quantity
                ],
                lambda measured: keys[measured['metric']][1],
            )
            if panel.values:
                panels.append(panel)
    drawing.save(
        plot_metrics(
            panels,
            drawing.styles,
            angles,
            protocol['title'],
            'rotation (degrees)',
        ),
        'invariance',
        protocol['title'],
        f'How much of the features stays when images are rotated. {MARKS}',
        'invariance',
    )


def draw_training(drawing: Drawing) -> None:
    """Draw the curves of runs whose log lies beside the checkpoint."""
    for name in drawing.trained:
        checkpoint = drawing.entries[name]['runs'][0]['checkpoint']
        if not checkpoint:
            continue
        # the folders are named by their time
        logs = sorted(Path(checkpoint).parent.glob('*/vis_data/scalars.json'))
        try:
            train, val = read_scalars(logs)
            stages = drawing.entries[name]['stages']
            figure = plot_training_curves(
                train,
                val,
                [stage for stage in stages if stage != EMBEDDING],
                drawing.name_title('Training', name),
            )
        except ValueError as error:
            if logs:
                drawing.say(f'no training curves of {name}: {error}')
            continue
        drawing.save(
            figure,
            drawing.name_file('training', name),
            drawing.name_title('Training', name),
            'What the run logged, the mean of each epoch: loss and accuracy '
            'of the pretext task, and how well the pooled features of each '
            'stage classify the validation images by their neighbors.',
        )


def draw_embedding(drawing: Drawing) -> None:
    """Draw the features of all networks in the plane."""
    count = min(MAX_EMBEDDED, len(drawing.places))
    if count < 5:
        return
    order = np.random.default_rng(drawing.seed).permutation(
        len(drawing.places)
    )
    chosen = np.sort(order[:count])
    if drawing.labeled:
        groups, names = drawing.labels[chosen], drawing.classes
        colors = 'class'
    else:
        first = drawing.trained[0]
        groups = drawing.clusters(first).numbers[chosen]
        names = [f'cluster {i + 1}' for i in range(groups.max() + 1)]
        colors = (
            drawing.name_title('cluster of k-means', first)
            + ', in all panels the same'
        )
    for way, embed in _list_embeddings().items():
        found = {}
        for name in drawing.order:
            drawing.say(f'{way} of {name}')
            vectors = drawing.features(name)[chosen]
            # where all are the same there is nothing to arrange, and
            # scikit-learn divides by 0
            found[name] = (
                embed(vectors, drawing.seed)
                if np.ptp(vectors, 0).max() > 0
                else np.zeros((count, 2))
            )
        drawing.save(
            plot_embedding(
                found,
                groups,
                names,
                f'{way} of {count} images{drawing.at(drawing.order)}',
            ),
            way.lower().replace('-', ''),
            f'{way} of the features',
            f'Features of {drawing.where(drawing.order)}. Every point is an '
            f'image, its '
            f'color the {colors}. Who is near whom carries a meaning; '
            'distances between groups, their sizes and the axes do not.',
        )


def _list_embeddings() -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """Name of an embedding -> what embeds (N, C) with a seed as (N, 2)."""
    if importlib.util.find_spec('umap'):
        return {'t-SNE': _embed_tsne, 'UMAP': _embed_umap}
    return {'t-SNE': _embed_tsne}


def _embed_tsne(vectors: np.ndarray, seed: int) -> np.ndarray:
    if min(vectors.shape) > EMBEDDED_CHANNELS:
        pca = PCA(EMBEDDED_CHANNELS, random_state=seed)
        vectors = pca.fit_transform(vectors)
    tsne = TSNE(
        perplexity=min(30.0, (len(vectors) - 1) / 3),
        init='pca',
        random_state=seed,
    )
    found: np.ndarray = tsne.fit_transform(vectors.astype(np.float64))
    return found


def _embed_umap(vectors: np.ndarray, seed: int) -> np.ndarray:
    # not typed, and seldom installed
    umap = importlib.import_module('umap')
    found: np.ndarray = umap.UMAP(
        n_neighbors=min(15, len(vectors) - 1),
        metric='cosine',
        n_jobs=1,
        random_state=seed,
    ).fit_transform(vectors)
    return found


def _choose_queries(drawing: Drawing, count: int) -> np.ndarray:
    """Positions of images to look at: of different classes if labeled."""
    places = drawing.places
    if not drawing.labeled:
        order = np.random.default_rng(drawing.seed).permutation(len(places))
        return np.sort(order[:count])
    present, first = np.unique(drawing.labels, return_index=True)
    chosen = np.linspace(0, len(present) - 1, min(count, len(present)))
    found: np.ndarray = first[np.unique(np.rint(chosen).astype(int))]
    return found


def draw_neighbors(drawing: Drawing) -> None:
    """Draw the nearest neighbors of some images, for all networks."""
    count = min(8, max(3, MAX_ROWS // len(drawing.order)))
    queries = drawing.places[_choose_queries(drawing, count)]
    searched = 'reference' if drawing.labeled else drawing.shown_set
    subject = drawing.subjects[drawing.trained[0]]
    alone = not drawing.labeled or subject.reference is subject.test
    found: dict[str, list] = {}
    drawing.say('nearest neighbors')
    for name in drawing.order:
        stage = drawing.stages[name]
        shown = drawing.images(name, drawing.shown_set)
        pool = drawing.images(name, searched)
        rows = shown.rows(queries)
        k = min(NUM_NEIGHBORS + alone, len(pool.places))
        nearest = search_neighbors(
            pool.stages[stage], shown.stages[stage][rows], k
        )[1].numpy()
        found[name] = []
        for query, row, near in zip(queries, rows, nearest, strict=True):
            # an image is not its own neighbor
            near = [
                i for i in near if not (alone and pool.places[i] == query)
            ][:NUM_NEIGHBORS]
            right: list[bool | None] = [None] * len(near)
            if drawing.labeled:
                assert pool.labels is not None
                assert shown.labels is not None
                right = [
                    bool(pool.labels[i] == shown.labels[row]) for i in near
                ]
            images = drawing.show(searched, pool.places[near])
            found[name].append(list(zip(images, right, strict=True)))
    if not any(row for rows in found.values() for row in rows):
        return
    names = [''] * len(queries)
    if drawing.labeled:
        labels = drawing.labels[np.searchsorted(drawing.places, queries)]
        names = [drawing.classes[label] for label in labels]
    drawing.save(
        plot_neighbors(
            list(
                zip(
                    drawing.show(drawing.shown_set, queries),
                    names,
                    strict=True,
                )
            ),
            found,
            f'Nearest neighbors{drawing.at(drawing.order)}',
        ),
        'neighbors',
        'Nearest neighbors',
        f'By cosine similarity of features, {drawing.where(drawing.order)}. '
        + (
            'Framed in blue: of the same class; in orange, with a cross: of '
            'another.'
            if drawing.labeled
            else 'There are no labels to tell right from wrong.'
        ),
    )


def draw_clusters(drawing: Drawing) -> None:
    """Draw what k-means finds, a page a trained network."""
    total = len(drawing.places)
    for name in drawing.trained:
        drawing.say(f'clusters of {name}')
        clusters = drawing.clusters(name)
        count = int(clusters.numbers.max()) + 1
        groups = {}
        for number in range(min(count, MAX_CLUSTERS)):
            members = np.flatnonzero(clusters.numbers == number)
            if not len(members):
                continue
            order = np.argsort(clusters.distances[members], kind='stable')
            nearest = drawing.places[members[order[:CLUSTER_IMAGES]]]
            share = 100 * len(members) / total
            caption = (
                f'Cluster {number + 1}: {len(members)} images ({share:.0f} %)'
            )
            if drawing.labeled:
                labels = np.bincount(drawing.labels[members])
                most = 100 * labels.max() / len(members)
                caption += (
                    f', mostly {drawing.classes[int(labels.argmax())]} '
                    f'({most:.0f} %)'
                )
            groups[caption] = drawing.show(drawing.shown_set, nearest)
        shown = '' if count == len(groups) else f', the {len(groups)} largest'
        drawing.save(
            plot_image_groups(
                groups,
                drawing.name_title(f'Clusters{drawing.at([name])}', name),
                f'{count} clusters by k-means{shown}; of each the images '
                'nearest to its center, nearest first',
                CLUSTER_IMAGES,
            ),
            drawing.name_file('clusters', name),
            drawing.name_title('Clusters', name),
            f'By k-means on normalized features of {drawing.where([name])}; '
            'labels take no part in it. A network that has learned well puts '
            'into a cluster what belongs together.',
            'clusters',
        )


def draw_confusion(drawing: Drawing) -> None:
    """Draw which classes kNN takes for which, for each trained network."""
    if not drawing.labeled:
        return
    for name in drawing.trained:
        drawing.say(f'confusion matrix of {name}')
        stage = drawing.stages[name]
        reference = drawing.images(name, 'reference')
        test = drawing.images(name, 'test')
        assert reference.labels is not None
        assert test.labels is not None
        found = knn_classify(
            reference.stages[stage],
            torch.from_numpy(reference.labels),
            test.stages[stage],
            CONFUSION_K,
        ).argmax(1)
        classes = drawing.classes
        counts = confusion_matrix(
            test.labels, found.numpy(), labels=range(len(classes))
        )
        accuracy = 100 * np.trace(counts) / counts.sum()
        drawing.save(
            plot_confusion(
                counts,
                classes,
                drawing.name_title(
                    f'Confusion matrix, {accuracy:.1f} % right', name
                ),
            ),
            drawing.name_file('confusion', name),
            drawing.name_title('Confusion matrix', name),
            f'Weighted kNN, k={CONFUSION_K}, on the features of '
            f'{drawing.where([name])}. Rows are the true classes and sum to '
            '100 %; what is right is on the diagonal.',
            'knn',
        )


@torch.no_grad()
def _last_map(model: Any, image: torch.Tensor, sample: Any) -> Any:
    """Name and map (C, H, W) of the last stage that has one."""
    data = model.data_preprocessor(
        dict(inputs=image[None], data_samples=[sample]), False
    )
    outputs = backbone_outputs(model, data['inputs'])
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    names = stage_names(model.backbone, len(outputs))
    for name, output in reversed(list(zip(names, outputs, strict=True))):
        # a transformer's class token comes beside its map
        parts = output if isinstance(output, (tuple, list)) else (output,)
        for part in parts:
            if part.dim() == 4 and max(part.shape[2:]) > 1:
                return name, part[0].float().cpu()
    return None


def draw_attention(drawing: Drawing) -> None:
    """Draw where networks respond to images and their rotations."""
    drawing.say('attention maps')
    count = 4 if len(drawing.order) <= 4 else 2
    places = drawing.places[_choose_queries(drawing, count)]
    maps: dict[str, list[dict[str, np.ndarray]]] = {}
    shown = []
    for name in drawing.order:
        dataset = drawing.images(name, drawing.shown_set).dataset
        model = drawing.subjects[name].model
        found: list[dict[str, np.ndarray]] = []
        for place in places.tolist():
            item = dataset[place]
            found.append({})
            for turns in range(4):
                image = torch.rot90(item['inputs'], turns, (1, 2))
                last = _last_map(model, image, item['data_samples'])
                if last is not None:
                    shown.append(stage_label(last[0]))
                    energy = last[1].abs().pow(ATTENTION_POWER).sum(0)
                    found[-1][f'{90 * turns}°'] = energy.numpy()
        if all(found):
            maps[name] = found
    if not maps:
        return
    images = [
        {f'{90 * turns}°': np.rot90(image, turns) for turns in range(4)}
        for image in drawing.show(drawing.shown_set, places)
    ]
    where = shown[0] if len(set(shown)) == 1 else 'the last stage with a map'
    drawing.save(
        plot_attention(
            images,
            maps,
            'Attention maps under rotation',
            f'Where {where} responds, from black, nothing, to yellow, each '
            "map's own maximum",
        ),
        'attention',
        'Attention maps under rotation',
        'At each position the sum over channels of the activations, to the '
        f'power {ATTENTION_POWER}, of the last stage that has a map (Gidaris '
        'et al., ICLR 2018, figure 3; Zagoruyko and Komodakis, ICLR 2017). '
        'A network that looks at the object looks at the same parts of it in '
        'all four rotations.',
    )


def draw_filters(drawing: Drawing) -> None:
    """Draw the first convolution of all networks."""
    groups = {}
    for name in drawing.order:
        model = drawing.subjects[name].model
        modules = model.backbone.modules()
        layers = [m for m in modules if isinstance(m, nn.Conv2d)]
        if not layers:
            continue
        weights = layers[0].weight.detach().float().cpu().numpy()
        if weights.shape[1] != 3:
            weights = weights.mean(1, keepdims=True)
        # zero is gray, so that signs are seen
        largest = np.abs(weights).max((1, 2, 3), keepdims=True)
        shades = 127.5 + 127.5 * weights / np.maximum(largest, 1e-12)
        images = np.rint(shades).astype(np.uint8).transpose(0, 2, 3, 1)
        some = images[:MAX_FILTERS]
        size = '×'.join(map(str, weights.shape[2:]))
        number = len(images)
        caption = f'{name}: ' + (
            f'{number} of {size}'
            if number == len(some)
            else f'{len(some)} of {number}, {size}'
        )
        groups[caption] = [np.broadcast_to(i, (*i.shape[:2], 3)) for i in some]
    if not groups:
        return
    drawing.say('filters')
    drawing.save(
        plot_image_groups(
            groups,
            'Filters of the first convolution',
            'Each is scaled to its own largest weight; gray is 0',
            8,
            min(2, len(groups)),
        ),
        'filters',
        'Filters of the first convolution',
        'In color where the network takes three channels, else the mean over '
        'its channels. Edges and color opponents are learned; what looks like '
        'noise in every filter has hardly left its initialization.',
    )


def draw_duplicates(drawing: Drawing, duplicates: Sequence[Duplicate]) -> None:
    """Draw images that are there twice."""
    if not duplicates:
        return
    pairs = []
    for found in duplicates[:MAX_PAIRS]:
        first, second = (
            drawing.show(which, [place])[0]
            for which, place in zip(found.sets, found.places, strict=True)
        )
        how = 'the same pixels'
        if not found.equal:
            how = f'correlation of the pixels {found.correlation:.3f}'
        lines = [
            f'{which}: {name}' if drawing.labeled else name
            for which, name in zip(found.sets, found.names, strict=True)
        ]
        pairs.append((first, second, [*lines, how]))
    count = len(duplicates)
    drawing.save(
        plot_pairs(
            pairs,
            'Duplicates',
            f'{count} pair{"" if count == 1 else "s"} of images that are '
            'equal, or nearly, as they enter the network'
            + (f'; the first {MAX_PAIRS}' if count > MAX_PAIRS else ''),
        ),
        'duplicates',
        'Duplicates',
        'Pairs whose features are most similar, if their pixels correlate by '
        '0.99 or more. Test images that are in the reference set, too, make '
        'accuracies look better than they are.',
    )
