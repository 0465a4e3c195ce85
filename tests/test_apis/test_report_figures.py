import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from sklearn.neighbors import KNeighborsClassifier
from subjects import (
    COLORS,
    build_network,
    build_subject,
    write_classes,
    write_flat,
)

from mm_rotssl.apis import report_drawing, report_figures
from mm_rotssl.apis.duplicates import Duplicate
from mm_rotssl.apis.report_drawing import Drawing, Images
from mm_rotssl.apis.report_figures import draw_report_figures
from mm_rotssl.evaluation.feature_store import FeatureStore
from mm_rotssl.visualization import contact_sheet

ANGLES = (90, 180, 270)
# name -> its untrained one
NETWORKS = {'mine': 'random', 'the/other': 'random', 'random': None}
# the best of 'mine' is stage 1, of the other stage 3
KNN = {
    'mine': {'1': [70.0, 72.0], '3': [60.0, 61.0]},
    'the/other': {'1': [50.0, 52.0], '3': [80.0, 81.0]},
    'random': {'1': [40.0, 43.0], '3': [45.0, 46.0]},
}


def metric(title, better=None, unit='%'):
    return dict(title=title, about='', unit=unit, better=better)


def make_report(networks, labeled=True, checkpoint=None):
    """As an evaluation writes it."""
    entries = [
        dict(
            name=name,
            kind='untrained' if other is None else 'trained',
            untrained=other,
            runs=[dict(config='c', checkpoint=checkpoint, seed=0)],
            stages=['1', '3'],
        )
        for name, other in networks.items()
    ]
    protocols = [
        dict(
            name='knn',
            title='kNN',
            labeled=True,
            metrics={'accuracy': metric('Accuracy', 'higher')},
        ),
        dict(
            name='invariance',
            title='Invariance',
            labeled=False,
            metrics={
                f'{key}_{angle}': metric(f'{title}, {angle}°', unit='')
                for key, title in (('neighbors', 'Kept'), ('cosine', 'Cosine'))
                for angle in ANGLES
            },
        ),
        # that could not be run
        dict(name='linear', title='Linear', labeled=True, metrics={}),
    ][not labeled :]
    measurements = [
        dict(
            protocol='knn',
            entry=name,
            metric='accuracy',
            stage=stage,
            runs=[KNN[name][stage]],
            chance=100 / 3,
        )
        for name in (networks if labeled else ())
        for stage in ('1', '3')
    ] + [
        dict(
            protocol='invariance',
            entry=name,
            metric=f'{key}_{angle}',
            stage=stage,
            runs=[[angle / 1000 + i + int(stage) * 10]],
            chance=None,
        )
        for i, name in enumerate(networks)
        for key in ('neighbors', 'cosine')
        for angle in ANGLES
        for stage in ('1', '3')
    ]
    return dict(
        entries=entries, protocols=protocols, measurements=measurements
    )


@pytest.fixture(scope='module')
def labeled(tmp_path_factory):
    """Networks, and images of three classes."""
    root = tmp_path_factory.mktemp('labeled')
    reference = write_classes(root / 'reference', 7, seed=0)
    test = write_classes(root / 'test', 5, seed=1)
    store = FeatureStore(root / 'features')
    return {
        name: build_subject(build_network(i), store, test, reference, test)
        for i, name in enumerate(NETWORKS)
    }


@pytest.fixture(scope='module')
def flat(tmp_path_factory):
    """Networks, and images of five channels without labels, one broken."""
    root = tmp_path_factory.mktemp('flat')
    folder = write_flat(root / 'images', 13, seed=2, channels=4)
    (folder / '03.png').write_bytes(b'broken')
    store = FeatureStore(root / 'features')
    return {
        name: build_subject(build_network(i, channels=4), store, folder)
        for i, name in enumerate(NETWORKS)
    }


@pytest.fixture
def kept(monkeypatch):
    """Name of a file -> its figure, of which none is written."""
    found = {}

    def keep(figure, path, svg):
        assert svg
        found[path.name] = figure
        return path

    monkeypatch.setattr(report_drawing, 'save_figure', keep)
    # positions that are known
    ways = {
        't-SNE': lambda vectors, _: vectors[:, :2],
        'UMAP': lambda vectors, _: vectors[:, 1:3],
    }
    monkeypatch.setattr(report_figures, '_list_embeddings', lambda: ways)
    return found


def features(subject, which, stage):
    """Directions of pooled features, float64, in the order of the files."""
    dataset = getattr(subject, which).dataset
    network = subject.model
    found = []
    for i in range(len(dataset)):
        image = dataset[i]['inputs'].numpy().astype(np.float64)
        if len(image) == 3:
            image = image[::-1]
        inputs = torch.from_numpy((image.copy() - 120) / 60)[None].float()
        with torch.no_grad():
            outputs = network.backbone(inputs)
        vector = outputs[('1', '3').index(stage)].mean((2, 3))[0].double()
        found.append((vector / vector.norm()).numpy())
    return np.array(found)


def pixels(subject, which, place):
    """An image as it is shown."""
    image = getattr(subject, which).dataset[place]['inputs'].numpy()
    if len(image) == 3:
        image = image[::-1]
    return image[:3].transpose(1, 2, 0)


def labels(subject, which):
    dataset = getattr(subject, which).dataset
    return np.array(
        [dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))]
    )


def test_list_of_the_figures(labeled, kept, tmp_path):
    duplicate = Duplicate(('test', 'reference'), (3, 8), ('a', 'b'), True, 1.0)
    said = []
    figures = draw_report_figures(
        make_report(NETWORKS), labeled, tmp_path, [duplicate], said.append
    )
    names = [figure['file'] for figure in figures]
    assert names == list(kept)
    assert names == [
        'metrics_knn.png',
        'invariance.png',
        'tsne.png',
        'umap.png',
        'neighbors.png',
        'clusters_1_mine.png',
        'clusters_2_the_other.png',
        'confusion_1_mine.png',
        'confusion_2_the_other.png',
        'attention.png',
        'filters.png',
        'duplicates.png',
    ]
    protocols = {f['file']: f['protocol'] for f in figures if f['protocol']}
    assert protocols == {
        'metrics_knn.png': 'knn',
        'invariance.png': 'invariance',
        'confusion_1_mine.png': 'knn',
        'confusion_2_the_other.png': 'knn',
    }
    for figure in figures:
        assert set(figure) == {'file', 'title', 'about', 'protocol'}
        assert figure['title']
        assert figure['about'][0].isupper()
        assert figure['about'].endswith('.')
    assert 'figures: t-SNE of mine' in said
    # it goes into report.json
    json.dumps(figures)


def test_metrics_are_those_of_the_report(labeled, kept, tmp_path):
    drawing = Drawing(make_report(NETWORKS), labeled, tmp_path)
    report_figures.draw_metrics(drawing)
    assert set(kept) == {'metrics_knn.png', 'invariance.png'}
    (axes,) = kept['metrics_knn.png'].axes
    found = {
        bars.get_label(): bars.lines[0].get_ydata().tolist()
        for bars in axes.containers
    }
    assert found == {
        name: [np.mean(values) for values in stages.values()]
        for name, stages in KNN.items()
    }
    (line,) = (li for li in axes.lines if li.get_label() == 'chance')
    assert set(line.get_ydata()) == {100 / 3}
    panels = kept['invariance.png'].axes
    assert [a.get_title('left') for a in panels] == [
        f'{title}, stage {stage}'
        for stage in '13'
        for title in ('Kept', 'Cosine')
    ]
    for axes, stage in zip(panels, (1, 1, 3, 3), strict=True):
        names = [text.get_text() for text in axes.get_xticklabels()]
        assert names == ['90', '180', '270']
        for i, bars in enumerate(axes.containers):
            assert bars.get_label() == list(NETWORKS)[i]
            want = [angle / 1000 + i + stage * 10 for angle in ANGLES]
            assert bars.lines[0].get_ydata().tolist() == pytest.approx(want)


def test_what_is_no_number_is_not_drawn(labeled, kept, tmp_path):
    report = make_report(NETWORKS)
    first, second, *_ = report['measurements']
    first['runs'] = [[None, 70.0, 80.0], [float('nan')]]
    second['runs'] = [[None]]
    drawing = Drawing(report, labeled, tmp_path)
    report_figures.draw_metrics(drawing)
    bars = kept['metrics_knn.png'].axes[0].containers[0]
    assert bars.lines[0].get_xydata()[:, 1].tolist() == [75.0]
    assert drawing.stages['mine'] == '1'


def test_points_are_the_features_of_the_best_stage(labeled, kept, tmp_path):
    drawing = Drawing(make_report(NETWORKS), labeled, tmp_path)
    report_figures.draw_embedding(drawing)
    figure = kept['tsne.png']
    # an untrained network beside the first that is compared with it
    stages = {'mine': '1', 'random': '1', 'the/other': '3'}
    assert [a.get_title('left') for a in figure.axes] == list(stages)
    for axes, (name, stage) in zip(figure.axes, stages.items(), strict=True):
        vectors = features(labeled[name], 'test', stage)
        classes = labels(labeled[name], 'test')
        for label, dots in enumerate(axes.collections):
            want = vectors[classes == label, :2]
            np.testing.assert_allclose(dots.get_offsets(), want, atol=1e-5)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == list(COLORS)
    assert 'umap.png' in kept
    about = drawing.figures[0]['about']
    assert 'the stage of each network that is the best by kNN' in about


def test_umap_is_used_where_it_is_installed(tmp_path, monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(9, 4))
    installed = importlib.util.find_spec('umap') is not None
    names = list(report_figures._list_embeddings())
    assert names == ['t-SNE', 'UMAP'][: 1 + installed]
    (tmp_path / 'umap.py').write_text(
        'class UMAP:\n'
        '    def __init__(self, **settings): self.settings = settings\n'
        '    def fit_transform(self, vectors): return self.settings, vectors\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'umap', raising=False)
    settings, given = report_figures._list_embeddings()['UMAP'](vectors, 5)
    del sys.modules['umap']
    assert given is vectors
    assert settings == dict(
        n_neighbors=8, metric='cosine', n_jobs=1, random_state=5
    )


def test_tsne_keeps_neighbors_together():
    rng = np.random.default_rng(0)
    centers = 9 * rng.normal(size=(3, 70))
    groups = np.arange(60) % 3
    vectors = centers[groups] + rng.normal(size=(60, 70))
    found = report_figures._embed_tsne(vectors.astype(np.float32), 0)
    assert found.shape == (60, 2)
    again = report_figures._embed_tsne(vectors.astype(np.float32), 0)
    assert np.array_equal(found, again)
    distances = np.linalg.norm(found[:, None] - found, axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1]
    assert (groups[nearest] == groups).all()


@pytest.mark.parametrize(
    ('count', 'channels', 'reduced', 'perplexity'),
    [(60, 70, 50, 59 / 3), (100, 40, 40, 30), (9, 70, 70, 8 / 3)],
)
def test_tsne_is_given_few_channels(
    count, channels, reduced, perplexity, monkeypatch
):
    given = {}

    class Recorder:
        def __init__(self, **settings):
            given.update(settings)

        def fit_transform(self, vectors):
            given['shape'] = vectors.shape

    monkeypatch.setattr(report_figures, 'TSNE', Recorder)
    vectors = np.random.default_rng(0).normal(size=(count, channels))
    report_figures._embed_tsne(vectors, 7)
    assert given == dict(
        shape=(count, reduced),
        perplexity=pytest.approx(perplexity),
        init='pca',
        random_state=7,
    )


def test_neighbors_are_the_nearest_and_marked(labeled, kept, tmp_path):
    drawing = Drawing(make_report(NETWORKS), labeled, tmp_path)
    report_figures.draw_neighbors(drawing)
    (axes,) = kept['neighbors.png'].axes
    shown = [np.asarray(image.get_array()) for image in axes.images]
    subject = labeled['mine']
    asked = labels(subject, 'test')
    known = labels(subject, 'reference')
    # the first of each class, in the order of the page
    queries = [int(np.flatnonzero(asked == label)[0]) for label in range(3)]
    expected, wrong = [], 0
    for query in queries:
        expected.append(pixels(subject, 'test', query))
        for name, stage in (
            ('mine', '1'),
            ('random', '1'),
            ('the/other', '3'),
        ):
            reference = features(labeled[name], 'reference', stage)
            vector = features(labeled[name], 'test', stage)[query]
            nearest = np.argsort(-(reference @ vector))[:8]
            expected += [pixels(subject, 'reference', i) for i in nearest]
            wrong += int((known[nearest] != asked[query]).sum())
    assert len(shown) == len(expected)
    for image, want in zip(shown, expected, strict=True):
        assert np.array_equal(image, want)
    assert len(axes.lines) == wrong > 0
    assert len(axes.patches) == 3 * 3 * 8
    texts = [text.get_text() for text in axes.texts]
    assert all(texts.count(name) == 1 for name in COLORS)


def test_neighbors_without_labels_are_others(flat, kept, tmp_path):
    """An image is not its own neighbor, and broken ones are passed over."""
    drawing = Drawing(make_report(NETWORKS, False), flat, tmp_path)
    assert drawing.places.tolist() == [i for i in range(13) if i != 3]
    report_figures.draw_neighbors(drawing)
    (axes,) = kept['neighbors.png'].axes
    shown = [np.asarray(image.get_array()) for image in axes.images]
    images = [pixels(flat['mine'], 'images', i) for i in range(13) if i != 3]

    def find(image):
        (place,) = (
            i for i, one in enumerate(images) if np.array_equal(one, image)
        )
        return place

    assert len(shown) == 5 * (1 + 3 * 8)
    vectors = {
        name: np.delete(features(flat[name], 'images', '3'), 3, axis=0)
        for name in NETWORKS
    }
    for first in range(0, len(shown), 25):
        query, *others = map(find, shown[first : first + 25])
        for i, name in enumerate(('mine', 'random', 'the/other')):
            near = np.argsort(-(vectors[name] @ vectors[name][query]))
            want = [j for j in near if j != query][:8]
            assert others[8 * i : 8 * i + 8] == want
    assert not axes.patches
    assert not axes.lines


def test_clusters_are_those_of_k_means(labeled, kept, tmp_path):
    drawing = Drawing(make_report(NETWORKS), labeled, tmp_path)
    for name in NETWORKS:
        sizes = np.bincount(drawing.clusters(name).numbers)
        # as many as classes, the largest first
        assert len(sizes) == 3
        assert (np.diff(sizes) <= 0).all()
    clusters = drawing.clusters('mine')
    vectors = features(labeled['mine'], 'test', '1')
    numbers = clusters.numbers
    # a fixed point of k-means
    centers = np.array([vectors[numbers == i].mean(0) for i in range(3)])
    distances = np.linalg.norm(vectors[:, None] - centers, axis=2)
    assert distances.argmin(1).tolist() == numbers.tolist()
    np.testing.assert_allclose(clusters.distances, distances.min(1), atol=1e-3)

    report_figures.draw_clusters(drawing)
    (axes,) = kept['clusters_1_mine.png'].axes
    classes = labels(labeled['mine'], 'test')
    for i, (text, sheet) in enumerate(
        zip(axes.texts, axes.images, strict=True)
    ):
        members = np.flatnonzero(numbers == i)
        counts = np.bincount(classes[members])
        most = 100 * counts.max() / len(members)
        assert text.get_text() == (
            f'Cluster {i + 1}: {len(members)} images '
            f'({100 * len(members) / 15:.0f} %), mostly '
            f'{list(COLORS)[counts.argmax()]} ({most:.0f} %)'
        )
        near = members[np.argsort(distances[members, i], kind='stable')]
        want = [pixels(labeled['mine'], 'test', j) for j in near[:9]]
        assert np.array_equal(sheet.get_array(), contact_sheet(want, 9))


def test_without_labels_clusters_color_the_points(flat, kept, tmp_path):
    drawing = Drawing(make_report(NETWORKS, False), flat, tmp_path)
    report_figures.draw_embedding(drawing)
    figure = kept['tsne.png']
    numbers = drawing.clusters('mine').numbers
    assert len(np.unique(numbers)) == 10
    for axes in figure.axes:
        sizes = [len(dots.get_offsets()) for dots in axes.collections]
        assert sizes == np.bincount(numbers).tolist()
        assert not axes.texts
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [f'cluster {i + 1}' for i in range(10)]
    assert 'Features of stage 3, the last.' in drawing.figures[0]['about']


def test_confusion_is_that_of_scikit_learn(labeled, kept, tmp_path):
    drawing = Drawing(make_report(NETWORKS), labeled, tmp_path)
    report_figures.draw_confusion(drawing)
    for name, stage, file in (
        ('mine', '1', 'confusion_1_mine.png'),
        ('the/other', '3', 'confusion_2_the_other.png'),
    ):
        # 1 - cosine = distance ** 2 / 2
        oracle = KNeighborsClassifier(
            20, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07)
        ).fit(
            features(labeled[name], 'reference', stage),
            labels(labeled[name], 'reference'),
        )
        found = oracle.predict(features(labeled[name], 'test', stage))
        counts = np.zeros((3, 3))
        np.add.at(counts, (labels(labeled[name], 'test'), found), 1)
        figure = kept[file]
        shown = figure.axes[0].images[0].get_array()
        np.testing.assert_allclose(shown, 100 * counts / 5)
        right = 100 * np.trace(counts) / 15
        assert f'{right:.1f} % right' in figure._suptitle.get_text()


def test_attention_is_the_energy_of_the_rotated_image(labeled, kept, tmp_path):
    drawing = Drawing(make_report(NETWORKS), labeled, tmp_path)
    report_figures.draw_attention(drawing)
    (axes,) = kept['attention.png'].axes
    shown = [np.asarray(image.get_array()) for image in axes.images]
    subject = labeled['mine']
    queries = [0, 5, 10]
    order = ('mine', 'random', 'the/other')
    step = 1 + 2 * len(order)
    assert len(shown) == len(queries) * 4 * step
    for i, query in enumerate(queries):
        image = pixels(subject, 'test', query)
        for turns in range(4):
            start = (4 * i + turns) * step
            rotated = np.rot90(image, turns)
            assert np.array_equal(shown[start], rotated)
            inputs = (rotated.transpose(2, 0, 1).astype(np.float32) - 120) / 60
            for j, name in enumerate(order):
                with torch.no_grad():
                    output = (
                        labeled[name]
                        .model.backbone(torch.from_numpy(inputs)[None])[-1][0]
                        .double()
                    )
                want = (output**4).sum(0).numpy()
                energy = shown[start + 2 + 2 * j]
                np.testing.assert_allclose(energy, want, rtol=1e-4)
    assert (
        'Where stage 3 responds' in kept['attention.png'].texts[1].get_text()
    )


def test_filters_are_the_weights(labeled, flat, kept, tmp_path):
    for subjects, is_labeled in ((labeled, True), (flat, False)):
        report = make_report(NETWORKS, is_labeled)
        report_figures.draw_filters(Drawing(report, subjects, tmp_path))
        (axes,) = kept['filters.png'].axes
        captions = [text.get_text() for text in axes.texts]
        assert captions == [
            f'{name}: 6 of 5×5' for name in ('mine', 'random', 'the/other')
        ]
        weights = subjects['mine'].model.backbone.state_dict()
        weights = next(iter(weights.values())).double().numpy()
        if not is_labeled:
            # of four channels the mean, in gray
            weights = weights.mean(1, keepdims=True).repeat(3, 1)
        sheet = np.asarray(axes.images[0].get_array(), np.float64)
        for i, one in enumerate(weights):
            scaled = 127.5 + 127.5 * one / np.abs(one).max()
            # pixels of 96 / 5
            found = sheet[9:96:19, 100 * i + 9 : 100 * i + 96 : 19]
            np.testing.assert_allclose(
                found, scaled.transpose(1, 2, 0), atol=0.51
            )


def test_duplicates_are_shown(labeled, kept, tmp_path):
    found = [
        Duplicate(('test', 'reference'), (3, 8), ('a.png', 'b.png'), True, 1),
        Duplicate(('test', 'test'), (1, 2), ('c.png', 'd.png'), False, 0.9912),
    ]
    drawing = Drawing(make_report(NETWORKS), labeled, tmp_path)
    report_figures.draw_duplicates(drawing, found)
    (axes,) = kept['duplicates.png'].axes
    want = [
        pixels(labeled['mine'], which, place)
        for duplicate in found
        for which, place in zip(duplicate.sets, duplicate.places, strict=True)
    ]
    for image, expected in zip(axes.images, want, strict=True):
        assert np.array_equal(image.get_array(), expected)
    assert [text.get_text() for text in axes.texts] == [
        'test: a.png\nreference: b.png\nthe same pixels',
        'test: c.png\ntest: d.png\ncorrelation of the pixels 0.991',
    ]
    kept.clear()
    report_figures.draw_duplicates(drawing, [])
    assert not kept


def test_curves_of_the_log_beside_the_checkpoint(labeled, kept, tmp_path):
    log = tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(
        '{"loss": 1.5, "epoch": 1, "iter": 10, "step": 10}\n'
        '{"knn/stage1": 50.0, "knn/stage2": 60.0, "step": 1}\n'
    )
    networks = {'mine': 'random', 'random': None}
    report = make_report(networks, checkpoint=str(tmp_path / 'epoch_1.pth'))
    said = []
    drawing = Drawing(report, labeled, tmp_path, said.append)
    report_figures.draw_training(drawing)
    loss, knn = kept['training.png'].axes
    assert loss.lines[0].get_ydata().tolist() == [1.5]
    names = [line.get_label() for line in knn.lines]
    # as the stages are called
    assert names == ['stage 1', 'stage 3']
    assert not said

    kept.clear()
    log.write_text('{"loss": 1.5, ')
    report_figures.draw_training(drawing)
    assert not kept
    assert 'no training curves of mine' in said[-1]
    log.unlink()
    report_figures.draw_training(drawing)
    assert len(said) == 1
    assert not kept


def test_a_single_network_without_training(flat, kept, tmp_path):
    """And entries of which there is no subject."""
    report = make_report(NETWORKS, False)
    subjects = {'random': flat['random']}
    figures = draw_report_figures(report, subjects, tmp_path)
    assert [figure['file'] for figure in figures] == [
        'invariance.png',
        'tsne.png',
        'umap.png',
        'neighbors.png',
        'clusters.png',
        'attention.png',
        'filters.png',
    ]
    for axes in kept['invariance.png'].axes:
        assert [bars.get_label() for bars in axes.containers] == ['random']


@pytest.mark.usefixtures('kept')
def test_very_few_images(tmp_path):
    folder = write_flat(tmp_path / 'images', 2, seed=3)
    subject = build_subject(build_network(), FeatureStore(), folder)
    report = make_report({'mine': None}, False)
    figures = draw_report_figures(report, {'mine': subject}, tmp_path)
    assert [figure['file'] for figure in figures] == [
        'invariance.png',
        'neighbors.png',
        'clusters.png',
        'attention.png',
        'filters.png',
    ]


def test_dead_network(flat, tmp_path, monkeypatch):
    """scikit-learn's t-SNE of points that are all the same ends Python."""
    monkeypatch.setattr(
        Drawing, 'features', lambda self, _: np.zeros((len(self.places), 6))
    )
    drawn = []
    monkeypatch.setattr(
        report_figures, 'plot_embedding', lambda found, *_: drawn.append(found)
    )
    monkeypatch.setattr(Drawing, 'save', lambda *_: None)
    drawing = Drawing(make_report(NETWORKS, False), flat, tmp_path)
    report_figures.draw_embedding(drawing)
    assert not drawn[0]['mine'].any()


def test_images_of_several_classes_are_shown_without(labeled, monkeypatch):
    extract = FeatureStore.extract

    def without_labels(*args, **kwargs):
        return dataclasses.replace(extract(*args, **kwargs), labels=None)

    monkeypatch.setattr(FeatureStore, 'extract', without_labels)
    drawing = Drawing(make_report(NETWORKS), labeled, Path())
    assert not drawing.labeled
    assert drawing.shown_set == 'images'


def test_of_many_images_some_are_looked_at(labeled, tmp_path, monkeypatch):
    monkeypatch.setattr(report_drawing, 'MAX_IMAGES', 6)
    drawing = Drawing(make_report(NETWORKS), labeled, tmp_path)
    places = drawing.places
    assert len(set(places.tolist())) == 6
    assert places.tolist() == sorted(places)
    assert drawing.labels.tolist() == (places // 5).tolist()
    vectors = features(labeled['mine'], 'test', '1')
    np.testing.assert_allclose(
        drawing.features('mine'), vectors[places], atol=1e-5
    )


def test_rows_of_places_in_any_order():
    places = np.array([7, 2, 9, 4])
    found = Images(None, places, {}, None).rows(np.array([9, 7, 4]))
    assert found.tolist() == [2, 0, 3]


def test_files_are_written(flat, tmp_path):
    """Really embedded, as PNG and SVG."""
    report = make_report({'mine': None}, False)
    drawing = Drawing(report, {'mine': flat['mine']}, tmp_path / 'new')
    report_figures.draw_embedding(drawing)
    (figure,) = (f for f in drawing.figures if f['file'] == 'tsne.png')
    folder = tmp_path / 'new'
    assert imread(folder / figure['file']).shape[1] == 900
    vector = (folder / figure['file']).with_suffix('.svg')
    assert vector.read_bytes().startswith(b'<?xml')
