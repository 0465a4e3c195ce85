"""mmpretrain's algorithms, alone and with rotation, in our loop and apis.

Each config is trained for three steps; what is logged, measured and exported
is compared with the backbone of the checkpoint itself.
"""

import functools
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from sklearn.svm import LinearSVC

from mm_rotssl.apis import (
    evaluate,
    evaluate_clusters,
    evaluate_svm,
    export,
)
from mm_rotssl.datasets import Digits
from mm_rotssl.evaluation import KNNAccuracy, draw_labels
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import algorithm_settings

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
PLAIN = ('moco', 'simclr', 'byol', 'swav', 'simsiam', 'barlowtwins')
ESSL = tuple(f'essl-{name}' for name in PLAIN)
# one that gives classes, too; and several algorithms on a backbone
NAMES = (*PLAIN, *ESSL, 'essl-self_classifier', 'multi_task')
# of those for what reads a checkpoint as another one does
SOME = ('byol', 'essl-moco', 'essl-self_classifier', 'multi_task')
BASES = {
    name: next(CONFIGS.glob(f'*/{pattern}_digits.py'))
    for name, pattern in (
        *((name, f'{name}_nin-w24_1xb128-20e') for name in (*PLAIN, *ESSL)),
        ('self_classifier', 'self-classifier_32c5-32c5-128f_1xb128-20e'),
        ('multi_task', 'multi-task_32c5-32c5-128f_1xb64-10e'),
    )
}
BASES['essl-self_classifier'] = BASES['self_classifier']
# what follows the backbone slowly
MOMENTUM = {'moco': 'encoder_k.module.0.', 'byol': 'target_net.module.0.'}

# Few images, the reference set not in their order; a rate at which three
# steps take the backbone away from its slow copy.
SMALL = """
_base_ = {base!r}
train_dataloader = dict(batch_size=32, dataset=dict({dataset}))
val_dataloader = dict(
    batch_size=50,
    dataset=dict(
        size={size}, indices=list(range(120)), serialize_data=False))
val_cfg = dict(reference_dataloader=dict(
    batch_size=50,
    dataset=dict(
        size={size}, indices=list(range(20, 200)), serialize_data=False),
    sampler=dict(shuffle=True)))
train_cfg = dict(max_epochs=1, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr={rate}))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
randomness = dict(seed=0)
"""
PARTS = dict(val=range(120), train=range(20, 200))
TASK = 'indices=96, serialize_data=False'
TASKS = """datasets=dict(
    rotation=dict(indices=96),
    exemplar=dict(
        dataset=dict(indices=96),
        seed_patches=dict(num_exemplars=40),
        num_deformations=2),
    clusters=dict(indices=96))"""
MORE = {
    'multi_task': """
model = dict(tasks=dict(exemplar=dict(head=dict(num_exemplars=40))))
""",
    'essl-self_classifier': """
model = dict(
    _delete_=True,
    type='mm_rotssl.ESSL',
    algorithm={{_base_.model}},
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mm_rotssl.RotationHead', in_channels=128, hid_channels=128))
train_dataloader['dataset']['pipeline'] = [
    dict(
        type='MultiView',
        num_views=[2, 1],
        transforms=2 * [
            [dict(type='mm_rotssl.RandomResizedCropFlip', scale=32)]]),
    dict(type='PackInputs')]
val_evaluator = [
    dict(type='mm_rotssl.KNNAccuracy'),
    dict(type='mm_rotssl.ClusteringMetric'),
    dict(type='mm_rotssl.RotationAccuracy')]
""",
}


@pytest.fixture(autouse=True, scope='module')
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Run:
    """What a training left behind."""

    def __init__(self, config, folder, size, validated):
        self.config, self.size = config, size
        # features of the test images, as validation had them
        self.validated = validated
        self.checkpoint = folder / 'epoch_1.pth'
        found = torch.load(self.checkpoint, weights_only=False)
        self.weights = found['state_dict']
        (log,) = folder.glob('*/vis_data/scalars.json')
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        # of the first step, and of validation
        self.losses, self.metrics = lines[0], lines[-1]
        self.known = {}

    def part(self, prefix):
        return {
            key.removeprefix(prefix): value
            for key, value in self.weights.items()
            if key.startswith(prefix)
        }

    def numbers(self, prefix):
        return {k: v.double().numpy() for k, v in self.part(prefix).items()}

    @torch.no_grad()
    def maps(self, split, prefix='backbone.', turns=0):
        """Maps of the backbone alone, in float64."""
        key = split, prefix, turns
        if key not in self.known:
            cfg = Config.fromfile(self.config)
            backbone = build(algorithm_settings(cfg)['backbone'])
            backbone.load_state_dict(self.part(prefix))
            images = np.rot90(make_images(split, self.size)[0], turns, (1, 2))
            inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
            found = backbone.double().eval()(inputs)
            self.known[key] = [stage.numpy() for stage in found]
        return self.known[key]

    def features(self, *key):
        return [stage.mean((2, 3)) for stage in self.maps(*key)]

    def are_of(self, found, prefix):
        """Whether these are the test images' features by a backbone."""
        return all(
            np.allclose(got, expected, rtol=1e-3, atol=1e-4)
            for got, expected in zip(
                found, self.features('val', prefix), strict=True
            )
        )

    def check_features(self, found, name):
        """They are those of the backbone, not of its slow copy."""
        assert self.are_of(found, 'backbone.')
        copy = MOMENTUM.get(name.removeprefix('essl-'))
        if copy and name.startswith('essl-'):
            copy = f'tasks.algorithm.{copy}'
        assert not (copy and self.are_of(found, copy))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Train a config, once."""

    @functools.cache
    def train(name):
        folder = tmp_path_factory.mktemp(name)
        config = folder / f'upstream_{name}.py'
        nin = name in (*PLAIN, *ESSL)
        size = 16 if nin else 32
        text = SMALL.format(
            base=str(BASES[name]),
            dataset=TASKS if name == 'multi_task' else TASK,
            rate=0.02 if nin else 0.001,
            size=size,
        )
        config.write_text(text + MORE.get(name, ''))
        cfg = Config.fromfile(config)
        cfg.work_dir = str(folder / 'run')
        validated = []
        process = KNNAccuracy.process

        def note(self, data_batch, data_samples):
            validated.extend(sample['feats'] for sample in data_samples)
            process(self, data_batch, data_samples)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KNNAccuracy, 'process', note)
            # the log shows the config, whose layout takes seconds
            patch.setattr(Config, 'pretty_text', '')
            Runner.from_cfg(cfg).train()
        stages = zip(*validated, strict=True)
        return Run(
            config,
            folder / 'run',
            size,
            [torch.stack(stage).numpy() for stage in stages],
        )

    return train


def build(settings):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(settings)


@functools.cache
def make_images(split, size=32):
    """Images (N, S, S, 3), as the preprocessor scales them, and classes."""
    dataset = Digits(split, size, pipeline=[], serialize_data=False)
    items = [dataset[i] for i in PARTS[split]]
    images = np.stack([item['img'] for item in items]).astype(float)
    return (images - 78) / 87, np.array([item['gt_label'] for item in items])


def own_knn(run):
    """Accuracy (%) of the 20 nearest, who vote by exp(cosine / 0.07).

    Of each stage the lowest and the highest that float32 may find: which of
    two neighbors is the nearer it cannot tell below 1e-6.
    """
    classes, labels = (make_images(split)[1] for split in ('train', 'val'))
    found = []
    for votes, asked in zip(
        run.features('train'), run.features('val'), strict=True
    ):
        low = high = 0
        for query, label in zip(asked, labels, strict=True):
            cosines = votes @ query / np.linalg.norm(query)
            cosines /= np.linalg.norm(votes, axis=1)
            order = np.argsort(-cosines)
            choices = [order[:20]]
            if cosines[order[19]] - cosines[order[20]] < 1e-6:
                choices.append([*order[:19], order[20]])
            winners = set()
            for choice in choices:
                scores = np.zeros(10)
                for i in choice:
                    scores[classes[i]] += np.exp(cosines[i] / 0.07)
                winners |= set(np.flatnonzero(scores > 0.9999 * scores.max()))
            low += winners == {label}
            high += label in winners
        found.append((100 * low / len(labels), 100 * high / len(labels)))
    return found


def within(found, bounds):
    return all(
        low - 1e-6 <= value <= high + 1e-6
        for value, (low, high) in zip(found, bounds, strict=True)
    )


def own_rotations(run):
    """Share (%) of the images whose turn is told, for each turn."""
    head = run.numbers('tasks.rotation.head.')
    found = []
    for turns in range(4):
        x = run.features('val', 'backbone.', turns)[-1]
        x = x @ head['hidden.0.weight'].T + head['hidden.0.bias']
        x = x - x.mean(1, keepdims=True)
        x /= np.sqrt((x**2).mean(1, keepdims=True) + 1e-5)
        x = x * head['hidden.1.weight'] + head['hidden.1.bias']
        logits = np.maximum(x, 0) @ head['fc.weight'].T + head['fc.bias']
        found.append(100 * np.mean(logits.argmax(1) == turns))
    return found


def own_classes(run):
    """Linear, batch normalization, LeakyReLU, linear; cosine * length."""
    mlp, head = (
        run.numbers(f'tasks.algorithm.{part}.')
        for part in ('neck.mlp', 'head.classifiers.0')
    )
    x = run.features('val')[-1] @ mlp['0.weight'].T + mlp['0.bias']
    x = (x - mlp['1.running_mean']) / np.sqrt(mlp['1.running_var'] + 1e-5)
    x = x * mlp['1.weight'] + mlp['1.bias']
    x = np.where(x > 0, x, 0.01 * x) @ mlp['3.weight'].T + mlp['3.bias']
    lengths, rows = (
        head[f'parametrizations.weight.original{i}'] for i in (0, 1)
    )
    rows = lengths * rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (x @ rows.T).argmax(1)


# --- training ---------------------------------------------------------------


@pytest.mark.parametrize('name', NAMES)
def test_validation_measures_the_backbone(trained, name):
    run = trained(name)
    knn = own_knn(run)
    assert len(knn) == (1 if name in (*PLAIN, *ESSL) else 3)
    logged = [run.metrics[f'knn/stage{i + 1}'] for i in range(len(knn))]
    assert within(logged, knn), (logged, knn)
    assert run.metrics['knn/best'] == max(logged)
    run.check_features(run.validated, name)
    expected = {}
    if name.startswith('essl-'):
        rotations = own_rotations(run)
        expected['rotation/accuracy'] = np.mean(rotations)
        for i, value in enumerate(rotations):
            expected[f'rotation/accuracy_{i}'] = value
        assert run.losses['loss_rotation'] > 0
        assert run.losses['loss'] == pytest.approx(
            run.losses['loss_algorithm'] + run.losses['loss_rotation']
        )
    metrics = {
        key: value
        for key, value in run.metrics.items()
        if key.startswith('rotation/')
    }
    assert metrics == pytest.approx(expected)
    if name == 'essl-self_classifier':
        found, labels = own_classes(run), make_images('val')[1]
        nmi = 100 * normalized_mutual_info_score(labels, found)
        assert nmi > 0
        assert run.metrics['cluster/nmi'] == pytest.approx(nmi)
        assert run.metrics['cluster/clusters_in_use'] == len(set(found))


# --- measuring --------------------------------------------------------------


@pytest.mark.parametrize('name', SOME)
def test_evaluate(trained, monkeypatch, tmp_path, name):
    run = trained(name)
    seen = {}

    def keep(_, subjects, *__):
        seen.update(subjects)
        return []

    # the package has a function of this name
    module = import_module('mm_rotssl.apis.evaluate')
    monkeypatch.setattr(module, 'draw_report_figures', keep)
    report = evaluate(
        f'a={run.config}@{run.checkpoint}',
        tmp_path,
        protocols=['knn', 'own-predictions'],
        options=dict(knn=dict(k=[20])),
        report=lambda _: None,
    )
    found = {
        (one['protocol'], one['stage']): one['runs'][0][0]
        for one in report['measurements']
        if one['entry'] == 'a'
    }
    own = found.pop(('own-predictions', None), None)
    embedding = found.pop(('knn', 'embedding'), None)
    # training measures what the config asks for, the report all stages
    knn = own_knn(run)
    assert within(list(found.values())[-len(knn) :], knn)
    assert [stage for _, stage in found] == ['1', '2', '3']
    # algorithms of the host that project their features
    assert (embedding is not None) == (
        name in ('byol', 'essl-moco', 'essl-self_classifier')
    )
    feats = seen['a'].features
    if embedding is not None:
        feats.test.pop()
    run.check_features(feats.test[-len(knn) :], name)
    if name.startswith('essl-'):
        assert own == pytest.approx(np.mean(own_rotations(run)))
    else:
        assert own is None


@pytest.mark.parametrize('name', ['essl-moco', 'essl-self_classifier'])
def test_evaluate_clusters(trained, tmp_path, name):
    run = trained(name)
    found = evaluate_clusters(
        *(run.config, run.checkpoint, tmp_path / 'clusters.json'),
        draws=1,
        num_clusters=5,
    )['results']['trained']
    expected = [
        KMeans(5, n_init=10, random_state=0)
        .fit(reference.astype(np.float32))
        .predict(test.astype(np.float32))
        for reference, test in zip(
            run.features('train'), run.features('val'), strict=True
        )
    ]
    if name == 'essl-self_classifier':
        expected.insert(0, own_classes(run))
    # the other one gives no classes
    assert ('own classes' in found) == (name == 'essl-self_classifier')
    labels = make_images('val')[1]
    assert [scores['nmi'] for (scores,) in found.values()] == pytest.approx(
        [100 * normalized_mutual_info_score(labels, x) for x in expected]
    )


def own_cells(run, split):
    """Largest values of the quadrants of each map, by slices."""
    found = []
    for maps in run.maps(split):
        half = -(-maps.shape[2] // 2)
        halves = [slice(0, half), slice(half, None)]
        if maps.shape[2] == 1:
            halves = [slice(None)]
        cells = [maps[:, :, r, c].max((2, 3)) for r in halves for c in halves]
        found.append(np.stack(cells, 2).reshape(len(maps), -1))
    return found


@pytest.mark.parametrize('name', ['essl-moco', 'multi_task'])
def test_evaluate_svm(trained, tmp_path, name):
    run = trained(name)
    found = evaluate_svm(
        *(run.config, run.checkpoint, 'few', tmp_path / 'svm.json'),
        draws=1,
        trials=1,
    )['results']['trained']
    classes, labels = (make_images(split)[1] for split in ('train', 'val'))
    # the draw is tested elsewhere
    chosen = draw_labels(torch.from_numpy(classes), 10, (0, 0)).numpy()
    train = [cells[chosen] for cells in own_cells(run, 'train')]
    scales = [np.percentile(np.abs(cells), 99.99) for cells in train]
    train, test = (
        np.concatenate([c / s for c, s in zip(x, scales, strict=True)], 1)
        for x in (train, own_cells(run, 'val'))
    )
    svm = LinearSVC(C=found['c'], dual=True, tol=0.1, random_state=0)
    accuracy = 100 * svm.fit(train, classes[chosen]).score(test, labels)
    assert found['accuracy'] == pytest.approx([accuracy])


# --- exporting --------------------------------------------------------------


@pytest.mark.parametrize('name', [*SOME, 'moco'])
def test_export(trained, tmp_path, name):
    run = trained(name)
    plain = name.removeprefix('essl-')
    # with rotation or without, the backbone is the same
    configs = [run.config, BASES[plain]]
    if plain in PLAIN:
        configs.append(BASES[f'essl-{plain}'])
    written = []
    for i, config in enumerate(configs):
        out = tmp_path / f'{i}.pth'
        export(config, run.checkpoint, 'mmpretrain', out)
        written.append(torch.load(out, weights_only=True))
    expected = run.part('backbone.')
    for found in written:
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert torch.equal(found[key], value), key

    # into the plain algorithm, and as its config would load it
    settings = Config.fromfile(BASES[plain]).model
    build(settings).backbone.load_state_dict(written[0], strict=True)
    settings.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(out))
    model = build(settings)
    model.init_weights()
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key
