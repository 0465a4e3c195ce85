import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from sklearn.svm import LinearSVC

from mm_rotssl.datasets import Digits
from mm_rotssl.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/benchmarks/evaluate_svm.py'
SPEC = importlib.util.spec_from_file_location('evaluate_svm', TOOL)
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

BASE = ROOT / 'configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py'
SIZE = 20


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        f"""_base_ = {str(BASE)!r}
model = dict(
    backbone=dict(base_channels=6, num_stages=3, out_indices=(0, 2)),
    head=dict(in_channels=6))
val_cfg = dict(reference_dataloader=dict(
    batch_size=50, dataset=dict(size={SIZE}, indices=200),
    sampler=dict(shuffle=True)))
val_dataloader = dict(batch_size=50, dataset=dict(size={SIZE}, indices=60))
"""
    )
    return path


@pytest.fixture
def checkpoint(config, tmp_path):
    init_default_scope('mmpretrain')
    torch.manual_seed(5)
    model = MODELS.build(Config.fromfile(config).model)
    path = tmp_path / 'run' / 'epoch_1.pth'
    path.parent.mkdir()
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def main(monkeypatch, *args):
    monkeypatch.setattr(
        sys, 'argv', [str(TOOL), *map(str, args), '--device', 'cpu']
    )
    tool.main()


def reference_features(config, checkpoint, split, count, side):
    """Quadrant maxima of both stages, by slices, and the labels."""
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(
        torch.load(checkpoint, weights_only=True)['state_dict']
    )
    dataset = Digits(split=split, size=SIZE, pipeline=[])
    images = torch.stack(
        [
            torch.from_numpy(dataset[i]['img'].transpose(2, 0, 1)).float()
            for i in range(count)
        ]
    )
    images = (images - 78) / 87
    images = torch.nn.functional.interpolate(
        images, (side, side), mode='bilinear'
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


def test_the_protocol(monkeypatch, capsys, config, checkpoint):
    out = checkpoint.parent / 'svm_few.json'
    main(
        monkeypatch,
        *(config, checkpoint, '--protocol', 'few', '--labels', 5),
        *('--draws', 3, '--trials', 4, '--input-size', 33),
    )
    summary = json.loads(out.read_text())
    trained = summary['results']['trained']
    train, labels = reference_features(config, checkpoint, 'train', 200, 33)
    test, answers = reference_features(config, checkpoint, 'val', 60, 33)
    assert trained['features'] == [stage.shape[1] for stage in train]

    # the same draws as every other tool's; what the first leaves over
    # decides on C
    draws = [
        tool.draw_labels(torch.from_numpy(labels), 5, (0, i)).numpy()
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
    shown = capsys.readouterr().out
    row = next(li for li in shown.splitlines() if li.startswith('trained   '))
    mean, spread = np.mean(want), np.std(want, ddof=1)
    assert f'{np.mean(trained["accuracy"]):.1f}' in row
    assert f'± {np.std(trained["accuracy"], ddof=1):.1f}' in row
    assert mean > 20
    assert spread > 0


def test_data_of_another_config(monkeypatch, config, checkpoint, tmp_path):
    # a config to train with alone has no labeled images
    bare = tmp_path / 'bare.py'
    cfg = Config.fromfile(config)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg.pop(key)
    cfg.dump(bare)
    results = []
    for args in ((config,), (bare, '--data', config)):
        out = tmp_path / f'{len(results)}.json'
        first, *more = args
        main(
            monkeypatch,
            *(first, checkpoint, '--protocol', 'few', '--labels', 3),
            *('--draws', 1, '--trials', 1, '--out', out, *more),
        )
        results.append(json.loads(out.read_text())['results'])
    assert results[0] == results[1]
    with pytest.raises(SystemExit, match='no labeled images'):
        main(monkeypatch, bare, checkpoint, '--protocol', 'all')


def test_held_out_images_where_all_are_trained_on(monkeypatch):
    labels = torch.tensor([0, 1] * 10 + [2] * 5)
    feats = [torch.arange(25.0)[:, None]]
    seen = {}

    def spy(train, train_labels, held_out, held_out_labels, *settings):
        seen.update(train=train, held_out=held_out, settings=settings)
        assert len(train) == len(train_labels)
        assert sorted(held_out_labels.tolist()) == [0, 0, 1, 1, 2]
        return 0.5, 1.0

    monkeypatch.setattr(tool, 'choose_c', spy)
    protocol = tool.PROTOCOLS['all']
    tool.best_c(protocol, feats, labels, torch.arange(25), 7)
    assert len(seen['train']) == 20
    # of one scale and no image on both sides
    both = torch.cat([seen['train'], seen['held_out']]).flatten()
    assert len(both.unique()) == 25
    assert seen['settings'] == ((1e-3, 1.0), 50, 1.0, 7)


def test_rest_of_the_training_set():
    labels = torch.tensor([0] * 8 + [1] * 3 + [2] * 5)
    chosen = torch.tensor([0, 1, 8, 9, 11, 12])
    drawn = tool.others(chosen, labels, 2, seed=1)
    assert not set(drawn.tolist()) & set(chosen.tolist())
    assert labels[drawn].bincount().tolist() == [2, 1, 2]
    assert len(set(drawn.tolist())) == 5
    all_others = tool.others(chosen, labels, None, seed=1)
    assert sorted([*all_others.tolist(), *chosen.tolist()]) == list(range(16))
    draws = {tuple(tool.others(chosen, labels, 2, s).tolist()) for s in (1, 2)}
    assert len(draws) == 2


def test_accuracy_of_images_and_of_classes():
    labels = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    guessed = torch.tensor([0, 0, 0, 1, 0, 2, 2])
    assert tool.accuracy(guessed, labels, False) == pytest.approx(500 / 7)
    assert tool.accuracy(guessed, labels, True) == pytest.approx(
        100 * (0.75 + 0 + 1) / 3
    )


def test_caltech_tests_on_the_rest(monkeypatch, config, checkpoint):
    real, seen = tool.svm_classify, []

    def spy(train, labels, queries, *settings):
        seen.append((len(train), len(queries), settings))
        return real(train, labels, queries, *settings)

    monkeypatch.setattr(tool, 'svm_classify', spy)
    main(
        monkeypatch,
        *(config, checkpoint, '--protocol', 'caltech101', '--labels', 4),
        *('--draws', 1, '--trials', 1, '--input-size', 32),
    )
    settings = json.loads(
        (checkpoint.parent / 'svm_caltech101.json').read_text()
    )
    # 200 images, none of which has 50 others of its class
    assert [entry[:2] for entry in seen] == [(40, 160)] * 2
    # 1 + 4 + 16 cells of 3 and 6 channels
    assert settings['results']['trained']['features'] == [21 * 3, 21 * 6]
    assert settings['settings']['by_class'] is True


class Folds:
    """A dataset with predefined folds."""

    def folds(self):
        """Places of the images of each."""
        return [np.array([i, i + 10]) for i in range(10)]


def test_predefined_folds():
    protocol = tool.PROTOCOLS['stl10']
    assert (protocol.bias, protocol.c_range) == (5, (2e-4, 2e-1))
    splits = tool.training_splits(protocol, Folds(), torch.zeros(20), 0)
    assert [s.tolist() for s in splits] == [[i, i + 10] for i in range(10)]
    with pytest.raises(ValueError, match=r'Compose has no predefined folds'):
        tool.training_splits(protocol, Compose([]), torch.zeros(20), 0)


@pytest.mark.parametrize(
    ('args', 'match'),
    [
        (['--protocol', 'stl10'], 'Error: A Digits has no predefined folds'),
        (
            ['--protocol', 'stl10', '--labels', '3'],
            'Error: --labels 3: protocol stl10 has predefined folds',
        ),
        (
            ['--protocol', 'few', '--labels', '99'],
            'Error: 99 labels a class were asked for',
        ),
    ],
)
def test_errors(monkeypatch, config, checkpoint, args, match):
    with pytest.raises(SystemExit, match=match):
        main(monkeypatch, config, checkpoint, *args)
    assert not list(checkpoint.parent.glob('*.json'))


def test_numbers_that_make_no_sense(monkeypatch, config, checkpoint, capsys):
    for option in ('--labels', '--draws', '--trials', '--input-size'):
        with pytest.raises(SystemExit):
            main(
                monkeypatch,
                *(config, checkpoint, '--protocol', 'few', option, 0),
            )
        assert f'{option} 0 must be positive' in capsys.readouterr().err
