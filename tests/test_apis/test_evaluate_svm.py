"""The linear SVM of Exemplar-CNN's papers, on a checkpoint."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from rich.console import Console
from sklearn.svm import LinearSVC

from mm_rotssl.apis import evaluate_svm, svm_table
from mm_rotssl.datasets import Digits
from mm_rotssl.evaluation import draw_labels
from mm_rotssl.evaluation.protocols import exemplar_svm as protocol_svm
from mm_rotssl.registry import MODELS

pytest_plugins = ['stand_ins']
ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / 'configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py'
SIZE = 20


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp('svm') / 'config.py'
    path.write_text(
        f"""_base_ = {str(BASE)!r}
model = dict(
    backbone=dict(base_channels=6, num_stages=3, out_indices=(0, 2)),
    head=dict(in_channels=6))
val_cfg = dict(reference_dataloader=dict(
    batch_size=50,
    dataset=dict(size={SIZE}, indices=200, serialize_data=False),
    sampler=dict(shuffle=True)))
val_dataloader = dict(
    batch_size=50, dataset=dict(size={SIZE}, indices=60, serialize_data=False))
"""
    )
    return path


@pytest.fixture(scope='module')
def checkpoint(config):
    init_default_scope('mmpretrain')
    torch.manual_seed(5)
    model = MODELS.build(Config.fromfile(config).model)
    path = config.parent / 'run' / 'epoch_1.pth'
    path.parent.mkdir()
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def reference_features(config, checkpoint, split, count, side):
    """Quadrant maxima of both stages, by slices, and the labels."""
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(
        torch.load(checkpoint, weights_only=True)['state_dict']
    )
    dataset = Digits(split=split, size=SIZE, pipeline=[], serialize_data=False)
    images = torch.stack(
        [
            torch.from_numpy(dataset[i]['img'].transpose(2, 0, 1)).float()
            for i in range(count)
        ]
    )
    images = (images - 78) / 87
    # Pillow's, channel by channel
    images = torch.stack(
        [
            torch.stack(
                [
                    torch.from_numpy(
                        np.asarray(
                            Image.fromarray(plane.numpy()).resize(
                                (side, side), Image.Resampling.BICUBIC
                            )
                        ).copy()
                    )
                    for plane in image
                ]
            )
            for image in images
        ]
    )
    with torch.no_grad():
        stages = model.backbone(images)
    found = []
    for stage in stages:
        maps = stage.double().numpy()
        # 9 of 17, 5 of 9, ...
        half = -(-maps.shape[2] // 2)
        cells = [
            maps[:, :, rows, columns].max((2, 3))
            for rows in (slice(0, half), slice(half, None))
            for columns in (slice(0, half), slice(half, None))
        ]
        found.append(np.stack(cells, 2).reshape(count, -1))
    labels = np.array([dataset[i]['gt_label'] for i in range(count)])
    return found, labels


def scaled(train, *others):
    divisors = [np.percentile(stage, 99.99) for stage in train]
    return [
        np.concatenate(
            [stage / d for stage, d in zip(stages, divisors, strict=True)], 1
        )
        for stages in (train, *others)
    ]


def svm(c, bias):
    return LinearSVC(
        C=c,
        intercept_scaling=bias,
        dual=True,
        tol=0.1,
        max_iter=10_000,
        random_state=0,
    )


def test_the_protocol(config, checkpoint):
    said = []
    out = checkpoint.parent / 'svm.json'
    summary = evaluate_svm(
        *(config, checkpoint, 'few', out),
        labels=5,
        draws=3,
        trials=4,
        input_size=33,
        report=said.append,
    )
    assert json.loads(out.read_text()) == summary
    assert said[-1] == 'trained: SVM 3 of 3'
    trained = summary['results']['trained']
    train, labels = reference_features(config, checkpoint, 'train', 200, 33)
    test, answers = reference_features(config, checkpoint, 'val', 60, 33)
    assert trained['features'] == [stage.shape[1] for stage in train]

    # the same draws as in other protocols; what the first leaves over
    # decides on C
    draws = [
        draw_labels(torch.from_numpy(labels), 5, (0, i)).numpy()
        for i in range(3)
    ]
    left = np.setdiff1d(np.arange(200), draws[0])
    fit, held_out = scaled(
        [s[draws[0]] for s in train], [s[left] for s in train]
    )
    rng = np.random.default_rng(0)
    tried = 1e-3 * 1e3 ** rng.random(4)
    scores = [
        svm(c, 1.0).fit(fit, labels[draws[0]]).score(held_out, labels[left])
        for c in tried
    ]
    assert trained['c'] == pytest.approx(
        min(c for c, s in zip(tried, scores, strict=True) if s == max(scores))
    )
    assert trained['held_out_accuracy'] == pytest.approx(100 * max(scores))
    want = []
    for draw in draws:
        fit, asked = scaled([s[draw] for s in train], test)
        classifier = svm(trained['c'], 1.0).fit(fit, labels[draw])
        want.append(100 * classifier.score(asked, answers))
    # float32 and float64 features may part at one image of sixty
    np.testing.assert_allclose(trained['accuracy'], want, atol=1.7)
    assert np.abs(np.subtract(trained['accuracy'], want)).sum() < 3.4

    assert summary['results']['untrained']['accuracy'] != trained['accuracy']
    assert summary['settings']['labels'] == 5
    assert summary['training_images'] == 50
    console = Console(width=200, file=io.StringIO())
    console.print(svm_table(summary))
    lines = console.file.getvalue().splitlines()
    row = next(line for line in lines if line.startswith('trained   '))
    mean, spread = np.mean(want), np.std(want, ddof=1)
    assert f'{np.mean(trained["accuracy"]):.1f}' in row
    assert f'± {np.std(trained["accuracy"], ddof=1):4.1f}' in row
    assert mean > 20
    assert spread > 0


def test_data_of_another_config(config, checkpoint, tmp_path):
    # a config to train with alone has no labeled images
    bare = tmp_path / 'bare.py'
    cfg = Config.fromfile(config)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg.pop(key)
    cfg.dump(bare)
    small = dict(labels=3, draws=1, trials=1)
    results = [
        evaluate_svm(
            *(first, checkpoint, 'few', tmp_path / 'a.json'),
            data=data,
            **small,
        )
        for first, data in ((config, None), (bare, config))
    ]
    assert results[0]['results'] == results[1]['results']
    assert [found['data'] for found in results] == [str(config)] * 2
    with pytest.raises(ValueError, match='no labeled images'):
        evaluate_svm(bare, checkpoint, 'all', tmp_path / 'b.json')


def test_classes_are_matched_by_name(
    config, checkpoint, tmp_path, reversed_digits
):
    small = dict(labels=3, draws=1, trials=1)
    plain, other = (
        evaluate_svm(
            *(config, checkpoint, 'few', tmp_path / 'a.json'),
            cfg_options=options,
            **small,
        )
        for options in (None, reversed_digits)
    )
    assert plain['results'] == other['results']


def test_caltech_tests_on_the_rest(monkeypatch, config, checkpoint, tmp_path):
    real, seen = protocol_svm.svm_classify, []

    def spy(train, labels, queries, *settings):
        seen.append((len(train), len(queries), settings))
        return real(train, labels, queries, *settings)

    monkeypatch.setattr(protocol_svm, 'svm_classify', spy)
    summary = evaluate_svm(
        *(config, checkpoint, 'caltech101', tmp_path / 'a.json'),
        labels=4,
        draws=1,
        trials=1,
        input_size=32,
    )
    # 200 images, none of which has 50 others of its class
    assert [entry[:2] for entry in seen] == [(40, 160)] * 2
    # 1 + 4 + 16 cells of 3 and 6 channels
    assert summary['results']['trained']['features'] == [21 * 3, 21 * 6]
    assert summary['settings']['by_class'] is True


@pytest.mark.parametrize(
    ('protocol', 'settings', 'match'),
    [
        ('stl10', {}, '^A Digits has no predefined folds'),
        (
            'stl10',
            dict(labels=3),
            '^--labels 3: protocol stl10 has predefined folds',
        ),
        ('few', dict(labels=99), '^99 labels a class were asked for'),
        ('mnist', {}, '^--protocol mnist: known are stl10, cifar10'),
    ],
)
def test_errors(config, checkpoint, tmp_path, protocol, settings, match):
    out = tmp_path / 'out.json'
    with pytest.raises(ValueError, match=match):
        evaluate_svm(config, checkpoint, protocol, out, **settings)
    assert not out.exists()
