"""One report on checkpoints: what is measured of what, and what is kept."""

import json
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mm_rotssl.apis import (
    build_untrained,
    evaluate,
    read_network,
    stage_remarks,
)
from mm_rotssl.apis.evaluate import choose_protocols
from mm_rotssl.evaluation import protocols
from mm_rotssl.evaluation.measurement import Measurement, Metric

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = ['{root}/configs/rotnet/rotnet_resnet18_1xb64-100e_custom.py']
model = dict(
    backbone=dict(_delete_=True, type='mm_rotssl.NIN', base_channels={width},
        num_stages=3, out_indices=(0, 2)),
    head=dict(in_channels={width}))
test_dataloader = dict(batch_size=5, num_workers=0, dataset=dict(pipeline=[
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='CenterCrop', crop_size=16),
    dict(type='PackInputs')]))
"""
calls = []
# before others stand for them
ALL = dict(protocols.PROTOCOLS)


@dataclass(frozen=True)
class Mean(protocols.Protocol):
    """Of the features, with no label."""

    scale: float = 1.0

    name = 'mean'
    title = 'Mean'
    about = 'The mean.'
    labeled = False
    metrics = {
        'mean': Metric('Mean', 'Of all.', better='higher'),
        'largest': Metric('Largest', 'Of all.'),
    }

    def run(self, subject):
        calls.append(self.name)
        for stage, feats in subject.image_features().items():
            mean = self.scale * feats.double().mean().item()
            yield Measurement('mean', stage, [mean])
            yield Measurement('largest', stage, [feats.max().item()])


@dataclass(frozen=True)
class Nearest(protocols.Protocol):
    """The class of the image that is as bright."""

    name = 'nearest'
    title = 'Nearest'
    about = 'By the mean.'
    labeled = True
    metrics = {'accuracy': Metric('Accuracy', '', '%', 'higher')}

    def run(self, subject):
        calls.append(self.name)
        feats = subject.features
        for stage, to_learn, to_test in zip(
            feats.stages, feats.reference, feats.test, strict=True
        ):
            found = torch.cdist(to_test, to_learn).argmin(1)
            right = feats.reference_labels[found] == feats.test_labels
            yield Measurement(
                'accuracy',
                stage,
                [100 * right.float().mean().item()],
                chance=50.0,
                correct=right.float().numpy(),
            )


@dataclass(frozen=True)
class Slow(Mean):
    """Only on demand."""

    name = 'slow'
    quick = False


@pytest.fixture(autouse=True)
def known(monkeypatch, request):
    calls.clear()
    # they take most of the time, and have tests of their own
    if request.function is not test_a_bare_folder:
        # the package has a function of this name
        module = import_module('mm_rotssl.apis.evaluate')
        monkeypatch.setattr(module, 'draw_report_figures', lambda *_: [])
    for kind in list(protocols.PROTOCOLS):
        monkeypatch.delitem(protocols.PROTOCOLS, kind)
    for kind in (Mean, Nearest, Slow):
        monkeypatch.setitem(protocols.PROTOCOLS, kind.name, kind)


def test_a_single_number_for_a_list():
    """`--protocol-options knn.k=20 linear.shots=10`."""
    options = dict(knn=dict(k=20), linear=dict(shots=10, draws=2))
    knn, linear = (
        protocols.KNN(k=(20,)),
        protocols.LinearProbe(shots=(10,), draws=2),
    )
    with pytest.MonkeyPatch.context() as patch:
        for kind in (protocols.KNN, protocols.LinearProbe):
            patch.setitem(protocols.PROTOCOLS, kind.name, kind)
        found = choose_protocols(['knn', 'linear'], options)
    assert found == [knn, linear]


@pytest.mark.parametrize(
    ('protocol', 'setting', 'value', 'expected'),
    [
        ('geometry', 'draws', 'x', 'a whole number above 0'),
        ('geometry', 'draws', 0, 'a whole number above 0'),
        ('geometry', 'draws', True, 'a whole number above 0'),
        ('geometry', 'draws', (1, 2), 'a whole number above 0'),
        ('knn', 'temperature', '1', 'a number'),
        ('knn', 'temperature', -1, 'a number'),
        ('knn', 'k', (), r'\[a whole number above 0, ...\]'),
        ('knn', 'k', (3, 'x'), 'a whole number above 0'),
        ('linear', 'c_grid', [], r'\[a number, ...\]'),
        ('clusters', 'num_clusters', 2.5, 'a whole number above 0 or None'),
        ('exemplar-svm', 'c_range', (1,), r'\[a number, a number\]'),
        ('exemplar-svm', 'folds', 1, 'True or False'),
    ],
)
def test_values_of_another_type(
    monkeypatch, protocol, setting, value, expected
):
    monkeypatch.setitem(protocols.PROTOCOLS, protocol, ALL[protocol])
    name = f'--protocol-options {protocol}.{setting}='
    said = rf'^{re.escape(name)}.*: expected {expected}\.$'
    with pytest.raises(ValueError, match=said):
        choose_protocols(None, {protocol: {setting: value}})


def test_defaults_are_of_their_types():
    """And stay what they are."""
    for kind in ALL.values():
        default = kind()
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(protocols.PROTOCOLS, kind.name, kind)
            (found,) = choose_protocols(
                [kind.name], {kind.name: vars(default)}
            )
        assert found == default


def write_images(folder, names, seed=0):
    """Bright ones of class b, dark ones of class a."""
    rng = np.random.default_rng(seed)
    for name in names:
        pixels = rng.integers(0, 100, (16, 16, 3), np.uint8)
        pixels += 150 * name.startswith('b')
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / 'images', [f'{i}.png' for i in range(12)])


@pytest.fixture
def labeled(tmp_path):
    """The folder to test on lacks a class of the other."""
    names = [f'{label}/{i}.png' for label in 'abc' for i in range(3)]
    to_learn = write_images(tmp_path / 'train', names, 1)
    to_test = write_images(
        tmp_path / 'val', [f'{c}/{i}.png' for c in 'bc' for i in range(4)], 2
    )
    return to_learn, to_test


def make_run(folder, seed=7, width=6, more=''):
    """As a run leaves it."""
    folder.mkdir(parents=True)
    config = folder / 'a.py'
    config.write_text(CONFIG.format(root=ROOT, width=width) + more)
    model = build_untrained(read_network(config), seed)
    torch.save(dict(state_dict=model.state_dict()), folder / 'epoch_1.pth')
    return folder


def measured(report, entry, metric='mean', protocol='mean'):
    """Stage -> values of the runs."""
    return {
        one['stage']: one['runs']
        for one in report['measurements']
        if (one['entry'], one['metric'], one['protocol'])
        == (entry, metric, protocol)
    }


def by_hand(folder, images, seed=None):
    """Mean features of each stage."""
    cfg = read_network(folder / 'a.py')
    if seed is None:
        seed = 7
    model = build_untrained(cfg, seed).eval()
    settings = cfg.model.data_preprocessor
    pixels = np.stack(
        [np.asarray(Image.open(path)) for path in sorted(images.iterdir())]
    )
    inputs = (pixels - np.array(settings.mean)) / settings.std
    with torch.no_grad():
        maps = model.backbone(torch.tensor(inputs).permute(0, 3, 1, 2).float())
    return [one.double().mean().item() for one in maps]


def test_a_bare_folder(tmp_path, images):
    run = make_run(tmp_path / 'run')
    out = tmp_path / 'out'
    report = evaluate(run, out, images=images, report=lambda _: None)
    for name in ('report.html', 'report.md', 'report.json'):
        assert (out / name).is_file()
    assert json.loads((out / 'report.json').read_text()) == report
    files = {one['file'] for one in report['figures']}
    assert {'metrics_mean.png', 'tsne.png', 'filters.png'} <= files
    assert all((out / file).is_file() for file in files)
    assert report['data']['images'] == dict(name=str(images), count=12)
    assert report['data']['reference'] is None
    assert [
        (one['name'], one['kind'], one['untrained'])
        for one in report['entries']
    ] == [('run', 'trained', 'untrained'), ('untrained', 'untrained', None)]
    # what needs labels is said to be left out, what takes long is not
    skipped = {one['name']: one['skipped'] for one in report['protocols']}
    assert skipped == {
        'mean': None,
        'nearest': 'there are no labeled images',
    }
    for entry, seed in (('run', 7), ('untrained', 0)):
        found = measured(report, entry)
        assert list(found) == ['1', '3']
        want = by_hand(run, images, seed)
        for runs, value in zip(found.values(), want, strict=True):
            assert runs == [[pytest.approx(value, rel=1e-4)]]
    # a figure that is neither good nor bad has no difference
    kinds = {one['metric'] for one in report['differences']}
    assert kinds == {'mean'}
    first = report['differences'][0]
    assert (first['entry'], first['baseline']) == ('run', 'untrained')
    assert first['value'] == pytest.approx(
        by_hand(run, images)[0] - by_hand(run, images, 0)[0], rel=1e-3
    )


def test_classes_are_matched_by_name(tmp_path, images, labeled):
    run = make_run(tmp_path / 'run')
    report = evaluate(
        run,
        tmp_path / 'out',
        images=images,
        labeled=labeled,
        report=lambda _: None,
    )
    assert report['data']['classes'] == ['a', 'b', 'c']
    assert report['data']['test']['count'] == 8
    # by their numbers the b, bright, would be the dark a
    found = measured(report, 'run', 'accuracy', 'nearest')
    assert found['1'] == [[pytest.approx(100 * 4 / 8, abs=30)]]
    assert found['1'][0][0] >= 50
    differences = [
        one for one in report['differences'] if one['protocol'] == 'nearest'
    ]
    assert {one['how'] for one in differences} == {
        'paired bootstrap over 8 test images'
    }


def test_seeds_are_one_entry(tmp_path, images):
    for seed in (7, 8):
        make_run(tmp_path / f'runs/{seed}', seed)
    other = make_run(tmp_path / 'other', 9)
    report = evaluate(
        [tmp_path / 'runs', f'x={other}'],
        tmp_path / 'out',
        images=images,
        report=lambda _: None,
    )
    names = [one['name'] for one in report['entries']]
    # both have the same untrained network
    assert names == ['runs', 'x', 'untrained']
    for seed, values in zip(
        (7, 8), measured(report, 'runs')['3'], strict=True
    ):
        want = by_hand(tmp_path / f'runs/{seed}', images, seed)[1]
        assert values == [pytest.approx(want, rel=1e-4)]
    for seed, values in zip(
        (0, 1), measured(report, 'untrained')['3'], strict=True
    ):
        want = by_hand(other, images, seed)[1]
        assert values == [pytest.approx(want, rel=1e-4)]
    pairs = {(one['entry'], one['baseline']) for one in report['differences']}
    assert pairs == {
        *(('runs', 'untrained'), ('x', 'untrained'), ('x', 'runs'))
    }
    how = {
        (one['entry'], one['baseline']): one['how']
        for one in report['differences']
    }
    assert how['runs', 'untrained'] == "Welch's, over 2 and 2 runs"
    assert how['x', 'runs'] == 'measured once'


SAME_BACKBONE = """
model.update(type='mm_rotssl.ExemplarCNN', head=dict(
    type='mm_rotssl.ExemplarHead', in_channels=6, num_exemplars=3))
"""
OTHER_REFERENCE = """
val_dataloader = dict(batch_size=5, dataset=dict(
    type='mm_rotssl.ImageFolder', data_root={folder!r}, with_label=True,
    pipeline=test_dataloader['dataset']['pipeline']))
val_cfg = dict(reference_dataloader=dict(batch_size=5, dataset=dict(
    type='mm_rotssl.ImageFolder', data_root={folder!r}, with_label=True,
    pipeline=[
        dict(type='mm_rotssl.LoadIntactImage'),
        dict(type='CenterCrop', crop_size={size}),
        dict(type='PackInputs')])))
"""


@pytest.mark.parametrize('kind', ['backbone', 'head', 'preparation'])
def test_untrained_networks_of_what_is_different(
    tmp_path, images, labeled, kind
):
    """A difference needs a start that has the same stages and images."""
    one, other = '', ''
    if kind == 'head':
        other = SAME_BACKBONE
    if kind == 'preparation':
        one, other = (
            OTHER_REFERENCE.format(folder=str(labeled[0]), size=size)
            for size in (16, 12)
        )
    report = evaluate(
        [
            make_run(tmp_path / 'one', more=one),
            make_run(
                tmp_path / 'other',
                width=12 if kind == 'backbone' else 6,
                more=other,
            ),
        ],
        tmp_path / 'out',
        images=images,
        report=lambda _: None,
    )
    assert [one['name'] for one in report['entries']] == [
        *('one', 'other', 'untrained one', 'untrained other')
    ]
    assert report['entries'][1]['untrained'] == 'untrained other'


def test_what_was_measured_is_not_measured_again(tmp_path, images):
    run = make_run(tmp_path / 'run')

    def again(**settings):
        calls.clear()
        return evaluate(
            run,
            tmp_path / 'out',
            images=images,
            report=lambda _: None,
            **settings,
        )

    first = again()
    assert calls == ['mean', 'mean']
    assert again()['measurements'] == first['measurements']
    assert not calls
    # settings, images and weights are what it depends on
    assert again(options=dict(mean=dict(scale=2.0)))
    assert calls == ['mean', 'mean']
    again(seed=1)
    assert calls == ['mean', 'mean']
    write_images(images, ['0.png'], 9)
    changed = again()
    assert calls == ['mean', 'mean']
    assert changed['measurements'] != first['measurements']


def test_chosen_protocols(tmp_path, images):
    run = make_run(tmp_path / 'run')

    def names(*protocols, **options):
        report = evaluate(
            run,
            tmp_path / 'out',
            images=images,
            protocols=protocols or None,
            options=options,
            report=lambda _: None,
        )
        return [one['name'] for one in report['protocols']]

    assert names('slow') == ['slow']
    assert names('all') == ['mean', 'nearest', 'slow']
    assert names() == ['mean', 'nearest']
    # whoever sets something wants it
    assert names(slow=dict(scale=3.0)) == ['mean', 'nearest', 'slow']


@dataclass(frozen=True)
class Choosy(Mean):
    """Wants more images."""

    name = 'choosy'

    def run(self, subject):
        self.count_images(subject.image_features(), 50)
        raise AssertionError


def test_what_cannot_be_measured(tmp_path, images, monkeypatch):
    """By itself it is left out, and said why; asked for, it is an error."""
    monkeypatch.setitem(protocols.PROTOCOLS, 'choosy', Choosy)
    report = call(tmp_path, images)
    skipped = {one['name']: one['skipped'] for one in report['protocols']}
    assert skipped['mean'] is None
    assert skipped['choosy'].startswith('choosy needs at least 50 images')
    with pytest.raises(ValueError, match='needs at least 50 images, got 12'):
        call(tmp_path, images, protocols=['choosy'])


def call(tmp_path, images, **settings):
    run = tmp_path / 'run'
    if not run.exists():
        make_run(run)
    return evaluate(
        run,
        tmp_path / 'out',
        images=images,
        report=lambda _: None,
        **settings,
    )


def test_wrong_input_ends_before_anything_is_measured(
    tmp_path, images, labeled
):
    for settings, said in (
        (dict(protocols=['knm']), 'no protocol "knm". Known are mean, near'),
        (dict(options=dict(knm=dict(k=1))), 'no protocol "knm"'),
        (
            dict(options=dict(mean=dict(sale=1))),
            'mean has no setting "sale". It has scale',
        ),
        (dict(protocols=['nearest']), 'nearest: needs labeled .*--labeled'),
        (dict(labeled=('nowhere', labeled[1])), 'There is no "nowhere"'),
        # classes that nobody has taught
        (dict(labeled=labeled[::-1]), r'right: a|has .*classes'),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            call(tmp_path, images, **settings)
        assert not calls
        assert not (tmp_path / 'out/report.json').exists()
    with pytest.raises(ValueError, match=r'names no images.*--images FOLDER'):
        call(tmp_path, None)


def test_images_to_test_on_are_the_images(tmp_path, labeled):
    report = evaluate(
        make_run(tmp_path / 'run'),
        tmp_path / 'out',
        labeled=labeled,
        report=lambda _: None,
    )
    assert report['data']['images'] == report['data']['test']
    assert report['data']['images']['count'] == 8


def test_class_of_which_nothing_is_learned(tmp_path, images, labeled):
    """Both folders have it, but no reference image is of it."""
    for file in (labeled[0] / 'b').iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r'1 classes, such as "b", of .* 6'):
        call(tmp_path, images, labeled=labeled)
    with pytest.raises(ValueError, match='such as "'):
        # three classes are not in one image
        call(tmp_path, images, labeled=labeled, max_reference=1)
    only_b = write_images(tmp_path / 'only', ['b/1.png', 'b/2.png'])
    with pytest.raises(ValueError, match=r'2 images .* all of one class'):
        call(tmp_path, images, labeled=(only_b, only_b))
    assert not calls


def test_runs_of_different_models_are_no_seeds(tmp_path, images):
    make_run(tmp_path / 'runs/0', seed=7)
    make_run(tmp_path / 'runs/1', seed=8, width=12)
    with pytest.raises(ValueError, match='runs of different models'):
        evaluate(tmp_path / 'runs', tmp_path / 'out', images=images)


def test_entries_on_different_images(tmp_path, images):
    other = write_images(tmp_path / 'other', ['1.png'])
    runs = []
    for name, folder in (('a', images), ('b', other)):
        run = make_run(tmp_path / name)
        text = (run / 'a.py').read_text()
        (run / 'a.py').write_text(
            f'{text}train_dataloader = dict(dataset=dict(data_root='
            f'{str(folder)!r}))\n'
        )
        runs.append(run)
    with pytest.raises(
        ValueError, match=r'different images \(images: 12 and 1\).*--images'
    ):
        evaluate(runs, tmp_path / 'out', report=lambda _: None)


def test_images_of_the_training_are_the_default(tmp_path, images):
    run = make_run(tmp_path / 'run')
    text = (run / 'a.py').read_text()
    (run / 'a.py').write_text(
        f'{text}train_dataloader = dict(dataset=dict(data_root='
        f'{str(images)!r}))\n'
    )
    report = evaluate(run, tmp_path / 'out', report=lambda _: None)
    assert report['data']['images'] == dict(name=str(images), count=12)
    report = evaluate(
        run, tmp_path / 'out', max_images=5, report=lambda _: None
    )
    assert report['data']['images']['count'] == 5


@pytest.mark.parametrize(
    ('untrained', 'trained', 'said'),
    [
        # the last stage has lost, the second has gained most
        ([50, 50, 60], [55, 70, 40], 'stage 4 has lost .*60.0 to 40.0 .* 2 g'),
        # it has gained
        ([50, 50, 30], [55, 70, 40], None),
        # all have lost: nothing has specialized
        ([50, 50, 60], [45, 40, 40], None),
        # by less than the interval
        ([50, 50, 60], [55, 70, 58], None),
        ([50, 50, 60], [51, 52, 40], None),
    ],
)
def test_remark_where_the_numbers_call_for_it(untrained, trained, said):
    def rows(entry, values):
        # the embedding is no stage to take features from
        stages = zip(['1', '2', '4', 'embedding'], [*values, 0], strict=True)
        for stage, value in stages:
            for metric, more in (('k=20', 0), ('k=10', 30)):
                yield dict(
                    protocol='knn',
                    metric=metric,
                    stage=stage,
                    entry=entry,
                    runs=[[value + more + 1], [value + more - 1]],
                )

    report = dict(
        protocols=[dict(name='knn', metrics={'k=20': {}, 'k=10': {}})],
        entries=[
            dict(name='mine', untrained='untrained'),
            dict(name='untrained', untrained=None),
        ],
        measurements=[*rows('mine', trained), *rows('untrained', untrained)],
        differences=[
            dict(
                protocol='knn',
                metric='k=20',
                stage=stage,
                entry='mine',
                baseline=baseline,
                value=value,
                low=value - 3,
                high=value + 3,
            )
            for baseline, sign in (('untrained', 1), ('another', -1))
            for stage, value in zip(
                ['1', '2', '4', 'embedding'],
                [
                    *(
                        sign * (after - before)
                        for after, before in zip(
                            trained, untrained, strict=True
                        )
                    ),
                    -90,
                ],
                strict=True,
            )
        ],
    )
    remarks = stage_remarks(report)
    if said is None:
        assert remarks == []
    else:
        assert re.search(said, remarks[0])
        assert remarks[0].startswith('mine: ')
        assert len(remarks) == 1
