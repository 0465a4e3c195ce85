"""mmpretrain's algorithms, alone and with rotation, in our loop and tools.

Each config is trained for three steps by the training script; what is logged,
measured and exported is compared with the backbone of the checkpoint itself.
"""

import functools
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
)
from sklearn.svm import LinearSVC

from mm_rotssl.apis import algorithm_settings
from mm_rotssl.datasets import Digits
from mm_rotssl.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
PLAIN = ('moco', 'simclr', 'byol', 'swav', 'simsiam', 'barlowtwins')
ESSL = tuple(f'essl-{name}' for name in PLAIN)
# one that gives classes, too; and several algorithms on a backbone
NAMES = (*PLAIN, *ESSL, 'essl-self_classifier', 'multi_task')
BASES = {
    **{
        name: CONFIGS / f'essl/{name}_nin-w24_1xb128-20e_digits.py'
        for name in (*PLAIN, *ESSL)
    },
    'self_classifier': CONFIGS
    / 'self_classifier/self-classifier_32c5-32c5-128f_1xb128-20e_digits.py',
    'multi_task': CONFIGS
    / 'multi_task/multi-task_32c5-32c5-128f_1xb64-10e_digits.py',
}
BASES['essl-self_classifier'] = BASES['self_classifier']
# what follows the backbone slowly
MOMENTUM = {'moco': 'encoder_k.module.0.', 'byol': 'target_net.module.0.'}

# The last batches are not full, and the bank is not in the order of the data.
SMALL = """
_base_ = {base!r}
train_dataloader = dict(batch_size=32, dataset=dict({streams}))
val_dataloader = dict(batch_size=50, dataset=dict(indices=120))
val_cfg = dict(bank_dataloader=dict(
    batch_size=50,
    dataset=dict(indices=list(range(20, 230))),
    sampler=dict(shuffle=True)))
train_cfg = dict(max_epochs=1, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=0.02))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
randomness = dict(seed=0)
"""
TEST, BANK = ('val', range(120)), ('train', range(20, 230))
STREAMS = {
    'multi_task': """datasets=dict(
    rotation=dict(indices=96),
    exemplar=dict(
        dataset=dict(indices=96), seeds=dict(num_seeds=40), num_deformations=2),
    clusters=dict(indices=96))"""
}
EXTRA = {
    'multi_task': """
model = dict(tasks=dict(exemplar=dict(head=dict(num_seeds=40))))
""",
    # as docs/mixing.md does it
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
        transforms=[
            [dict(type='mm_rotssl.RandomResizedCrop', scale=32)],
            [dict(type='mm_rotssl.RandomResizedCrop', scale=32)]]),
    dict(type='PackInputs')]
val_evaluator = [
    dict(type='mm_rotssl.KNNAccuracy'),
    dict(type='mm_rotssl.ClusteringMetric'),
    dict(type='mm_rotssl.RotationAccuracy')]
""",
}


def load(path):
    spec = importlib.util.spec_from_file_location(
        f'{Path(path).stem}_of_upstream', ROOT / 'tools' / path
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


train_tool = load('train.py')
features_tool = load('benchmarks/evaluate_features.py')
clusters_tool = load('benchmarks/evaluate_clusters.py')
svm_tool = load('benchmarks/evaluate_svm.py')
export_tool = load('model_converters/export_backbone.py')


@pytest.fixture(autouse=True, scope='module')
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def call(tool, *words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['tool', *map(str, words)])
        # which the training script adds to
        patch.setattr(os, 'environ', dict(os.environ))
        tool.main()


class Run(NamedTuple):
    """What a training left behind."""

    config: Path
    checkpoint: Path
    #: the last line of the log with the metrics, and the first of training
    metrics: dict
    losses: dict
    weights: dict

    def part(self, prefix):
        return {
            key.removeprefix(prefix): value
            for key, value in self.weights.items()
            if key.startswith(prefix)
        }

    def numbers(self, prefix):
        return {k: v.double().numpy() for k, v in self.part(prefix).items()}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Train a config, once."""

    @functools.cache
    def train(name):
        folder = tmp_path_factory.mktemp(name)
        config = folder / f'upstream_{name}.py'
        config.write_text(
            SMALL.format(
                base=str(BASES[name]),
                streams=STREAMS.get(name, 'indices=96'),
            )
            + EXTRA.get(name, '')
        )
        call(
            train_tool,
            *(config, '--work-dir', folder / 'run'),
        )
        (log,) = (folder / 'run').glob('*/vis_data/scalars.json')
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        checkpoint = folder / 'run/epoch_1.pth'
        return Run(
            config,
            checkpoint,
            lines[-1],
            lines[0],
            torch.load(checkpoint, weights_only=False)['state_dict'],
        )

    return train


def build(settings):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(settings)


def pictures(split, indices):
    """Pictures (N, S, S, 3), as the preprocessor scales them, and classes."""
    dataset = Digits(split=split, pipeline=[])
    items = [dataset[i] for i in indices]
    images = np.stack([item['img'] for item in items]).astype(float)
    return (images - 78) / 87, np.array([i['gt_label'] for i in items])


@torch.no_grad()
def own_maps(run, images, prefix='backbone.'):
    """Maps of the backbone alone, in float64."""
    backbone = build(algorithm_settings(Config.fromfile(run.config))['backbone'])
    backbone.load_state_dict(run.part(prefix))
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    return [m.numpy() for m in backbone.double().eval()(inputs)]


def own_features(run, images, prefix='backbone.'):
    return [m.mean((2, 3)) for m in own_maps(run, images, prefix)]


def own_knn(run, prefix='backbone.'):
    """Accuracy (%) of the 20 nearest, who vote by exp(cosine / 0.07)."""
    (bank, classes), (test, labels) = (pictures(*p) for p in (BANK, TEST))
    found = []
    for votes, asked in zip(
        own_features(run, bank, prefix),
        own_features(run, test, prefix),
        strict=True,
    ):
        hits = 0
        for query, label in zip(asked, labels, strict=True):
            cosines = votes @ query / np.linalg.norm(query)
            cosines /= np.linalg.norm(votes, axis=1)
            scores = np.zeros(10)
            for i in np.argsort(-cosines)[:20]:
                scores[classes[i]] += np.exp(cosines[i] / 0.07)
            hits += scores.argmax() == label
        found.append(100 * hits / len(labels))
    return found


def own_rotations(run):
    """Share (%) of the pictures whose turn is told, for each turn."""
    images, _ = pictures(*TEST)
    head = run.numbers('rotation_head.')
    found = []
    for turns in range(4):
        turned = np.rot90(images, turns, (1, 2))
        x = own_features(run, turned)[-1]
        x = x @ head['hidden.0.weight'].T + head['hidden.0.bias']
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(
            x.var(1, keepdims=True) + 1e-5
        )
        x = x * head['hidden.1.weight'] + head['hidden.1.bias']
        logits = np.maximum(x, 0) @ head['fc.weight'].T + head['fc.bias']
        found.append(100 * np.mean(logits.argmax(1) == turns))
    return found


def own_classes(run):
    """Linear, batch normalisation, LeakyReLU, linear; largest cosine."""
    images, labels = pictures(*TEST)
    mlp, head = run.numbers('neck.mlp.'), run.numbers('head.classifiers.0.')
    x = own_features(run, images)[-1] @ mlp['0.weight'].T + mlp['0.bias']
    x = (x - mlp['1.running_mean']) / np.sqrt(mlp['1.running_var'] + 1e-5)
    x = x * mlp['1.weight'] + mlp['1.bias']
    x = np.where(x > 0, x, 0.01 * x) @ mlp['3.weight'].T + mlp['3.bias']
    lengths, rows = (
        head[f'parametrizations.weight.original{i}'] for i in (0, 1)
    )
    rows = lengths * rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (x @ rows.T).argmax(1), labels


def check_momentum(name, run):
    """The slow copy is another network, so that it would be noticed."""
    prefix = MOMENTUM.get(name.removeprefix('essl-'))
    if prefix:
        slow, fast = run.part(prefix), run.part('backbone.')
        assert set(slow) == set(fast)
        assert own_knn(run, prefix) != own_knn(run)
    return prefix


# --- training ---------------------------------------------------------------


@pytest.mark.parametrize('name', NAMES)
def test_validation_measures_the_backbone(trained, name):
    run = trained(name)
    knn = own_knn(run)
    assert len(knn) == (1 if name in (*PLAIN, *ESSL) else 3)
    expected = {f'knn/stage{i}': value for i, value in enumerate(knn, 1)}
    expected['knn/best'] = max(knn)
    if name.startswith('essl-'):
        rotations = own_rotations(run)
        expected['rotation/accuracy'] = np.mean(rotations)
        for i, value in enumerate(rotations):
            expected[f'rotation/accuracy_{i}'] = value
        assert run.losses['rotation_loss'] > 0
        assert 'algorithm_loss' in run.losses
    if name == 'essl-self_classifier':
        found, labels = own_classes(run)
        expected['cluster/nmi'] = 100 * normalized_mutual_info_score(
            labels, found
        )
        expected['cluster/ari'] = 100 * adjusted_rand_score(labels, found)
    measured = {
        key: value
        for key, value in run.metrics.items()
        if '/' in key and not key.startswith(('cluster/', 'time'))
        or key in expected
    }
    assert measured == pytest.approx(expected)
    print(name, expected, check_momentum(name, run) and own_knn(run, MOMENTUM[name.removeprefix('essl-')]))
    check_momentum(name, run)


# --- measuring --------------------------------------------------------------


@pytest.mark.parametrize('name', NAMES)
def test_evaluate_features(trained, monkeypatch, tmp_path, name):
    run = trained(name)
    seen = []

    def keep(results, feats, *_):
        seen.append(feats)
        return []

    monkeypatch.setattr(features_tool, 'draw_pictures', keep)
    call(
        features_tool,
        *(run.config, run.checkpoint, '--out', tmp_path, '--device', 'cpu'),
        *('--draws', 1, '--shots', 1, '--finetune-shots', 0),
    )
    results = json.loads((tmp_path / 'results.json').read_text())['results']
    blocks = results['trained']['blocks']
    assert [block['knn'] for block in blocks] == pytest.approx(own_knn(run))
    images, _ = pictures(*TEST)
    expected = own_features(run, images)
    for found, feats in zip(seen[0].test['trained'], expected, strict=True):
        np.testing.assert_allclose(found, feats, rtol=1e-3, atol=1e-4)
    prefix = check_momentum(name, run)
    if prefix:
        slow = own_features(run, images, prefix)
        assert not np.allclose(slow, expected, rtol=0.01, atol=1e-3)
    accuracy = results['trained']['rotation_accuracy']
    if name.startswith('essl-'):
        assert accuracy == pytest.approx(np.mean(own_rotations(run)))
    else:
        assert accuracy is None
    # and not what the seed makes
    assert blocks != results['untrained']['blocks']


@pytest.mark.parametrize('name', NAMES)
def test_evaluate_clusters(trained, tmp_path, name):
    run = trained(name)
    out = tmp_path / 'clusters.json'
    call(
        clusters_tool,
        *(run.config, run.checkpoint, '--out', out, '--device', 'cpu'),
        *('--draws', 1, '--num-clusters', 5),
    )
    results = json.loads(out.read_text())['results']['trained']
    bank, _ = pictures(*BANK)
    test, labels = pictures(*TEST)
    expected = [
        KMeans(5, n_init=10, random_state=0)
        .fit(fit.astype(np.float32))
        .predict(feats.astype(np.float32))
        for fit, feats in zip(
            own_features(run, bank), own_features(run, test), strict=True
        )
    ]
    if name == 'essl-self_classifier':
        expected.insert(0, own_classes(run)[0])
        assert list(results)[0] == 'own classes'
    assert [scores[0]['nmi'] for scores in results.values()] == pytest.approx(
        [100 * normalized_mutual_info_score(labels, x) for x in expected]
    )


def own_cells(run, images):
    """Largest values of the quadrants of each map, by slices."""
    found = []
    for maps in own_maps(run, images):
        half = -(-maps.shape[2] // 2)
        halves = [slice(0, half), slice(half, None)]
        if maps.shape[2] == 1:
            halves = [slice(None)]
        cells = [maps[:, :, r, c].max((2, 3)) for r in halves for c in halves]
        found.append(np.stack(cells, 2).reshape(len(maps), -1))
    return found


@pytest.mark.parametrize('name', NAMES)
def test_evaluate_svm(trained, tmp_path, name):
    run = trained(name)
    out = tmp_path / 'svm.json'
    call(
        svm_tool,
        *(run.config, run.checkpoint, '--out', out, '--device', 'cpu'),
        *('--protocol', 'all', '--trials', 1),
    )
    found = json.loads(out.read_text())['results']['trained']
    (bank, classes), (test, labels) = (pictures(*p) for p in (BANK, TEST))
    train, asked = own_cells(run, bank), own_cells(run, test)
    scales = [np.percentile(np.abs(cells), 99.99) for cells in train]
    train, asked = (
        np.concatenate([c / s for c, s in zip(x, scales, strict=True)], 1)
        for x in (train, asked)
    )
    svm = LinearSVC(C=found['c'], dual=True, tol=0.1, random_state=0)
    accuracy = 100 * svm.fit(train, classes).score(asked, labels)
    assert found['accuracy'] == pytest.approx([accuracy])


# --- exporting --------------------------------------------------------------


@pytest.mark.parametrize('name', NAMES)
def test_export(trained, tmp_path, name):
    run = trained(name)
    plain = name.removeprefix('essl-')
    written = []
    # with rotation or without, the config has the same backbone
    for config in dict.fromkeys((run.config, BASES[plain], BASES[name])):
        out = tmp_path / f'{len(written)}.pth'
        call(
            export_tool,
            *(config, run.checkpoint, '--to', 'mmpretrain', '--out', out),
        )
        written.append(torch.load(out, weights_only=True))
    expected = run.part('backbone.')
    if plain in PLAIN:
        assert set(expected) == set(trained(plain).part('backbone.'))
    for found in written:
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert torch.equal(found[key], value), key

    # into the plain algorithm, and as its config would load it
    settings: Any = Config.fromfile(BASES[plain]).model
    build(settings).backbone.load_state_dict(written[0], strict=True)
    settings.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(out))
    model = build(settings)
    model.init_weights()
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, expected[key]), key
