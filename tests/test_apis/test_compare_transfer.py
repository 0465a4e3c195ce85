"""Fine-tuning from several initializations, and what is made of it."""

import io
import json
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from rich.console import Console

from mm_rotssl.apis import (
    compare_transfer,
    read_config,
    transfer,
    transfer_table,
)
from mm_rotssl.models import NIN

ROOT = Path(__file__).resolve().parents[2]
DETECTOR, SEGMENTER = (
    next((ROOT / 'configs/transfer' / name / 'digit_scenes').glob('*.py'))
    for name in ('mmdetection', 'mmsegmentation')
)


@pytest.fixture
def config(tmp_path):
    """A config of which only the initialization matters."""

    def write(model="backbone=dict(init_cfg=dict(type='Pretrained'))"):
        path = tmp_path / 'tiny.py'
        path.write_text(f'model = dict({model})\n')
        return path

    return write


# --- what is asked for ------------------------------------------------------


def test_places():
    """At any depth, and nothing but files."""
    pretrained = dict(type='Pretrained', checkpoint='x')
    model = dict(
        backbone=dict(init_cfg=pretrained),
        neck=dict(init_cfg=dict(type='Kaiming')),
        heads=[dict(shared=dict(init_cfg=pretrained)), None],
        # an argument of the same content, but not an initialization
        teacher=pretrained,
    )
    model['tail'] = dict(init_cfg=[dict(type='Kaiming'), pretrained])
    found = list(transfer.pretrained_nodes(model))
    assert [place for place, _ in found] == [
        'model.backbone',
        'model.heads.0.shared',
        'model.tail',
    ]
    for _, node in found:
        transfer.set_init(node, 'y')
    assert model['backbone']['init_cfg']['checkpoint'] == 'y'
    assert model['tail']['init_cfg'] == [
        dict(type='Kaiming'),
        dict(type='Pretrained', checkpoint='y'),
    ]
    for _, node in found:
        transfer.set_init(node, None)
    assert model['backbone']['init_cfg'] is None
    assert model['tail']['init_cfg'] == [dict(type='Kaiming')]
    assert model['teacher'] == pretrained


def test_runs(tmp_path, config):
    files = [tmp_path / f'b{seed}.pth' for seed in (3, 5)]
    for file in files:
        file.touch()
    runs, changed = transfer.plan_runs(
        config(
            "a=dict(init_cfg=dict(type='Pretrained')), "
            "b=dict(init_cfg=dict(type='Pretrained'))"
        ),
        dict(random=None, mine=f'{tmp_path}/b{{seed}}.pth', net='url://x'),
        tmp_path / 'out',
        [3, 5],
        {'work_dir': 'x'},
    )
    assert [(r.init, r.seed, r.folder.name, r.file) for r in runs] == [
        ('random', 3, 'random-seed3', None),
        ('mine', 3, 'mine-seed3', str(files[0])),
        ('net', 3, 'net-seed3', 'url://x'),
        ('random', 5, 'random-seed5', None),
        ('mine', 5, 'mine-seed5', str(files[1])),
        ('net', 5, 'net-seed5', 'url://x'),
    ]
    for run in runs:
        assert run.cfg.randomness.seed == run.seed
        assert run.cfg.work_dir == 'x'
        for part in (run.cfg.model.a, run.cfg.model.b):
            found = part.init_cfg and part.init_cfg.checkpoint
            assert found == run.file
        # whether the config has it or not
        assert run.cfg.custom_hooks == [dict(type=transfer.CHECK)]
    assert list(changed) == ['custom_hooks']


def test_own_check_of_a_config_stays(config):
    path = config()
    hooks = [dict(type=transfer.CHECK, new=['x.'])]
    path.write_text(f'{path.read_text()}custom_hooks = {hooks}\n')
    runs, changed = transfer.plan_runs(path, dict(r=None), path.parent, [0])
    assert runs[0].cfg.custom_hooks == hooks
    assert changed == {}


def test_nothing_else_is_loaded(tmp_path, config):
    """It would replace every initialization."""
    path = config()
    path.write_text(f"{path.read_text()}load_from = 'coco.pth'\n")
    with pytest.raises(ValueError, match=r"load_from='coco\.pth', which"):
        compare_transfer(path, dict(random=None), tmp_path / 'out')


def test_every_start_is_trained(config):
    """Frozen stages would be an unfair baseline."""
    path = config(
        "a=dict(type='mmpretrain.ResNet', frozen_stages=1, norm_eval=True, "
        "norm_cfg=dict(type='BN', requires_grad=False), "
        "init_cfg=dict(type='Pretrained')), "
        # by default, and by a class above
        "b=dict(type='mmpretrain.ResNetV1c', init_cfg=dict("
        "type='Pretrained')), "
        "c=dict(type='mm_rotssl.NIN', init_cfg=dict(type='Pretrained')), "
        # not from a file
        'd=dict(frozen_stages=1)'
    )
    runs, changed = transfer.plan_runs(
        path, dict(random=None, mine='url://x'), path.parent, [0]
    )
    del changed['custom_hooks']
    default = transfer.default_of(
        runs[0].cfg, runs[0].cfg.model.b, 'norm_eval'
    )
    expected = {
        'model.a.frozen_stages': -1,
        'model.a.norm_eval': False,
        'model.a.norm_cfg.requires_grad': True,
    }
    if default:
        expected['model.b.norm_eval'] = False
    assert changed == expected
    for run in runs:
        model = run.cfg.model
        assert (model.a.frozen_stages, model.a.norm_eval) == (-1, False)
        assert model.a.norm_cfg == dict(type='BN', requires_grad=True)
        assert 'norm_eval' not in model.c
        assert model.d.frozen_stages == 1


@pytest.mark.downstream
def test_normalization_of_mmdet_is_trained(config):
    """Its default is to keep the statistics."""
    path = config(
        "a=dict(type='mmdet.ResNet', depth=18, "
        "init_cfg=dict(type='Pretrained'))"
    )
    _, changed = transfer.plan_runs(path, dict(r=None), path.parent, [0])
    assert changed['model.a.norm_eval'] is False


SMALL = """
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.ResNet', depth=18, base_channels=4, stem_channels=4,
        {settings}
        init_cfg=dict(type='Pretrained', checkpoint='x')))
default_scope = 'mmpretrain'
"""


@pytest.fixture
def classifier(tmp_path):
    """A config with a ResNet, and its weights with their names changed."""

    def write(prefix='', settings=''):
        config = tmp_path / 'config.py'
        config.write_text(SMALL.format(settings=settings))
        cfg = read_config(config, {'model.backbone.init_cfg': None})
        weights = MODELS.build(cfg.model).backbone.state_dict()
        torch.save(
            {prefix + k: v for k, v in weights.items()}, tmp_path / 'mine.pth'
        )
        return config, tmp_path / 'mine.pth'

    return write


def test_weights_that_would_not_arrive(monkeypatch, tmp_path, classifier):
    """Are refused before anything is trained, by whatever config."""
    monkeypatch.setattr(transfer, 'TRAIN', ('false',))
    for prefix, message in (
        ('backbone.', r'--init mine: .*(\n.*)*missing: conv1\.weight'),
        # these go on to training
        ('', r'random, seed 0, failed'),
    ):
        config, file = classifier(prefix)
        with pytest.raises((ValueError, RuntimeError), match=message):
            compare_transfer(
                config, dict(random=None, mine=str(file)), tmp_path / 'out'
            )
        assert (tmp_path / 'out').exists() == (not prefix)


def test_what_stays_frozen_is_refused(tmp_path, classifier):
    """By whatever name a network freezes it."""
    config, file = classifier(settings='with_cp=False,')
    (run,), _ = transfer.plan_runs(
        config, dict(mine=str(file)), tmp_path / 'out', [0]
    )
    transfer.check_run(run)
    run.cfg.model.backbone.frozen_stages = 1
    with pytest.raises(ValueError, match=r'model\.backbone keeps .*conv1\.we'):
        transfer.check_run(run)
    run.cfg.model.backbone.frozen_stages = -1
    run.cfg.model.backbone.norm_eval = True
    with pytest.raises(ValueError, match=r'backbone keeps 20 .*such as bn1'):
        transfer.check_run(run)


CROPS = """
pipeline = [
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=(512, 512)), dict(type='Pad',
    size=(512, 512))]
train_dataloader = dict(dataset=dict(datasets=[dict(pipeline=pipeline)] * 2))
val_dataloader = dict(dataset=dict(
    pipeline=[dict(type='Resize', scale=(2048, 512))]))
model = dict(
    data_preprocessor=dict(size=(512, 512), size_divisor=None),
    backbone=dict(init_cfg=dict(type='Pretrained')),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
"""


def test_crop_size_is_one_setting(tmp_path):
    path = tmp_path / 'crops.py'
    path.write_text(CROPS)
    runs, changed = transfer.plan_runs(
        path, dict(random=None), tmp_path, [0], crop_size=128
    )
    cfg = runs[0].cfg
    assert len(changed) == 11
    for part in cfg.train_dataloader.dataset.datasets:
        resize, crop, pad = part.pipeline
        assert resize == dict(
            type='RandomResize', scale=(512, 128), ratio_range=(0.5, 2.0)
        )
        assert (crop.crop_size, pad.size) == ((128, 128), (128, 128))
    (resize,) = cfg.val_dataloader.dataset.pipeline
    assert resize.scale == (512, 128)
    assert cfg.model.data_preprocessor.size == (128, 128)
    assert cfg.model.test_cfg.crop_size == (128, 128)
    assert cfg.model.test_cfg.stride == (85, 85)

    # a part of it pads each crop to the old size
    place = 'train_dataloader.dataset.datasets'
    options = {f'{place}.{i}.pipeline.1.crop_size': (128, 128) for i in (0, 1)}
    with pytest.raises(
        ValueError, match=r'size=\(512, 512\) would pad .* of 128 .*--crop-s'
    ):
        transfer.plan_runs(path, dict(r=None), tmp_path, [0], options)


def test_crop_size_without_crops(config):
    path = config()
    with pytest.raises(ValueError, match=r'--crop-size 64: .* no RandomCrop'):
        transfer.plan_runs(path, dict(r=None), path.parent, [0], crop_size=64)


@pytest.mark.parametrize(
    ('inits', 'seeds', 'message'),
    [
        ({'a/b': 'url://1'}, [0], r'--init a/b: .* no slashes'),
        ({'a': 'none.pth'}, [0], r'a=none\.pth: there is no such file'),
        ({'a': 'b{seed}.pth'}, [0], r'a=b0\.pth: there is no such file'),
        ({f'{i}': 'url://' for i in range(5)}, [0], 'at most 4'),
        ({'random': None}, [1, 1], 'one is there twice'),
    ],
)
def test_refuses_what_it_cannot_do(tmp_path, config, inits, seeds, message):
    out = tmp_path / 'out'
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        compare_transfer(config(), inits, out, seeds=seeds)
    assert not out.exists()


def test_refuses_configs_without_file(tmp_path, config):
    cfg = config("backbone=dict(init_cfg=dict(type='Kaiming'))")
    with pytest.raises(ValueError, match=r'tiny\.py has no init_cfg'):
        compare_transfer(cfg, dict(random=None), tmp_path / 'out')


# --- what the runs left -----------------------------------------------------


def make_run(folder, name, seed, lines):
    logs = folder / f'{name}-seed{seed}' / '20260101_000000/vis_data'
    logs.mkdir(parents=True)
    (logs / 'scalars.json').write_text(
        ''.join(json.dumps(line) + '\n' for line in lines)
    )
    return transfer.Run(name, seed, logs.parents[1], Config())


def test_metrics(tmp_path):
    """In percent, the last ones, and only what was measured."""
    lines = [
        dict(loss=2.0, iter=1, step=1, time=0.1, data_time=0.0),
        {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_l': -1.0, 'step': 5},
        {
            'coco/bbox_mAP': 0.25,
            'coco/bbox_mAP_50': 0.5,
            # with the prefixes of our own configs
            '11points/mAP': 0.375,
            'area/AP50': 0.75,
            'coco/bbox_mAP_l': -1.0,
            'mIoU': 40.0,
            'IoU.cat': float('nan'),
            'time': 0.3,
            'data_time': 0.1,
            'step': 10,
        },
    ]
    run = make_run(tmp_path, 'a', 0, lines)
    final = transfer.final_metrics(run)
    assert final == {
        'coco/bbox_mAP': 25.0,
        'coco/bbox_mAP_50': 50.0,
        '11points/mAP': 37.5,
        'area/AP50': 75.0,
        'mIoU': 40.0,
    }
    assert transfer.headlines(final) == [
        'coco/bbox_mAP',
        '11points/mAP',
        'mIoU',
    ]
    train, val = transfer.read_run(run)
    assert [line['loss'] for line in train] == [2.0]
    assert val[0] == {'coco/bbox_mAP': 10.0, 'step': 5}


def test_never_validated(tmp_path):
    run = make_run(tmp_path, 'a', 0, [dict(loss=2.0, iter=1, step=1)])
    with pytest.raises(ValueError, match=r'a-seed0" was never validated'):
        transfer.final_metrics(run)


def test_table():
    values = {'a': [10.0, 11.0, 15.0], 'b': [1.0, 2.0, 4.0]}
    final = {
        name: [{'mIoU': v, **({'x': v} if v == 4.0 else {})} for v in vs]
        for name, vs in values.items()
    }
    table = transfer_table(dict(final=final))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert 'over 3 seeds' in text
    for vs in values.values():
        mean, spread = statistics.mean(vs), statistics.stdev(vs)
        assert f'{mean:.1f} ± {spread:4.1f}' in text
    # of one seed, and of none
    assert text.split('\n')[-2].split() == [
        'x',
        '-',
        *['4.0', '(1', 'of', '3)'],
    ]


def test_says_why_there_are_no_numbers():
    """A detector that finds no box is not measured by mmdet."""
    final = dict(a=[{}, {'mAP': 2.0}], b=[{'mAP': 3.0}, {'mAP': 5.0}])
    for found in (final, dict(a=[{}])):
        table = transfer_table(dict(final=found, unmeasured=['a-seed0']))
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(table)
        text = ' '.join(console.export_text().split())
        assert f'a-seed0: {transfer.NOTHING}' in text
    assert '2.0 (1 of 2)' in ' '.join(text_of(final).split())


def text_of(final):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(transfer_table(dict(final=final)))
    return console.export_text()


def test_runs_the_training_command(monkeypatch, tmp_path):
    """Of this package, wherever it is installed; and only once."""
    commands = []

    def run(command, **settings):
        commands.append(command)
        settings['stdout'].write(b'trained')
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(transfer.subprocess, 'run', run)
    # a name with a dot, and a folder that the command line would split
    folder = tmp_path / 'of mine, here/a.b-seed0'
    planned = transfer.Run('a.b', 0, folder, Config(dict(x=1)))
    transfer.train(planned, jobs=1)
    asked = folder.parent / 'a.b-seed0.py'
    assert commands == [
        [
            *(sys.executable, '-m', 'mm_rotssl', 'train', str(asked)),
            *('--work-dir', str(planned.folder), '--resume'),
        ]
    ]
    assert Config.fromfile(asked).x == 1
    assert (planned.folder / 'train.log').read_text() == 'trained'
    assert transfer.train(planned, jobs=1) == 0
    assert len(commands) == 1
    # a folder of an older version, which did not say what it was asked
    asked.unlink()
    with pytest.raises(ValueError, match='holds a run with other settings'):
        transfer.train(planned, jobs=1)


def test_failed_run_says_why(monkeypatch, tmp_path, config):
    """The end of its log; and it is not taken for done."""
    monkeypatch.setattr(
        transfer, 'TRAIN', (sys.executable, '-c', 'raise KeyError("why")')
    )
    asked = (config(), dict(random=None), tmp_path / 'out')
    for _ in range(2):
        with pytest.raises(
            RuntimeError,
            match=r'random, seed 4, failed \(exit status 1\)(.|\n)*: .why',
        ):
            compare_transfer(*asked, seeds=[4])
    # its folder is not used for something else
    with pytest.raises(ValueError, match=r'random-seed4" holds a run with ot'):
        compare_transfer(*asked, seeds=[4], cfg_options=dict(work_dir='x'))


@pytest.mark.parametrize(('side', 'factor'), [(20, 15), (160, 1), (301, 1)])
def test_small_images_are_enlarged(side, factor):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (side // 2, side, 3), np.uint8)
    boxes = torch.tensor([[1.0, 2.0, 5.0, 6.0]])
    classes = torch.from_numpy(rng.integers(0, 3, (1, side // 2, side)))
    sample = BaseDataElement()
    for key in ('gt_instances', 'pred_instances'):
        found = InstanceData(bboxes=boxes.clone(), labels=torch.tensor([3]))
        if key == 'gt_instances':
            found.masks = torch.ones(1, side // 2, side)
        sample.set_field(found, key)
    for key in ('gt_sem_seg', 'pred_sem_seg'):
        sample.set_field(PixelData(data=classes.clone()), key)

    drawn = transfer.enlarge(image, sample)
    assert drawn.shape == (side // 2 * factor, side * factor, 3)
    for y, x in ((0, 0), (side // 2 - 1, side - 1), (3, 7)):
        stage = np.s_[
            y * factor : (y + 1) * factor, x * factor : (x + 1) * factor
        ]
        assert (drawn[stage] == image[y, x]).all()
        for key in ('gt_sem_seg', 'pred_sem_seg'):
            data = sample.get(key).data
            assert data.shape == (1, *drawn.shape[:2])
            assert (data[0][stage] == classes[0, y, x]).all()
    for key in ('gt_instances', 'pred_instances'):
        assert torch.equal(sample.get(key).bboxes, boxes * factor)
        assert sample.get(key).labels.tolist() == [3]
    assert ('masks' in sample.gt_instances) == (factor == 1)


# --- all of it --------------------------------------------------------------


@pytest.mark.downstream
def test_end_to_end(monkeypatch, tmp_path):
    """Weights that are there are seen in the first loss already."""
    from mm_rotssl.datasets.synthetic.digit_scenes import write_scenes

    # a path that a list of options would be split at
    tmp_path = tmp_path / 'of mine, here'
    write_scenes(tmp_path / 'scenes', train=4, val=3, size=48)
    torch.manual_seed(0)
    weights = NIN(base_channels=24).state_dict()
    for name, value in weights.items():
        if name.endswith('weight') and value.dim() == 4:
            value *= 3
    torch.save(weights, tmp_path / 'mine.pth')
    root = tmp_path / 'scenes/VOCdevkit/VOC2012'
    out = tmp_path / 'out'
    said = []

    def compare():
        return compare_transfer(
            SEGMENTER,
            dict(random=None, mine=f'{tmp_path}/mine.pth'),
            out,
            seeds=[0],
            jobs=2,
            images=2,
            cfg_options={
                'train_cfg.max_iters': 4,
                'train_cfg.val_interval': 2,
                'default_hooks.logger.interval': 2,
                'default_hooks.checkpoint.interval': 4,
                **{
                    f'{loader}.dataset.data_root': str(root)
                    for loader in ('train_dataloader', 'val_dataloader')
                },
            },
            report=said.append,
        )

    results = compare()
    assert json.loads((out / 'results.json').read_text()) == results
    for name in ('random', 'mine'):
        mine = results['final'][name][0]
        assert any(
            message.startswith(f'{name}, seed 0: mIoU {mine["mIoU"]:.1f}, ')
            for message in said
        )
        assert [v['step'] for v in results['validation'][name][0]] == [2, 4]
        log = (out / f'{name}-seed0/train.log').read_text()
        assert ('pre-trained tensors are in the model' in log) == (
            name == 'mine'
        )
    for name, columns in (('curves', 2), ('predictions', 3)):
        image = mmcv.imread(str(out / f'{name}.png'))
        assert image.shape[1] > columns * 200
        assert len(np.unique(image)) > 20

    # nothing is done twice, and nothing else
    before = (out / 'random-seed0/done.json').stat().st_mtime_ns
    monkeypatch.setattr(transfer, 'TRAIN', ('false',))
    said.clear()
    assert compare()['final'] == results['final']
    assert len(said) == 2
    assert all(message.endswith('as it was') for message in said)
    assert (out / 'random-seed0/done.json').stat().st_mtime_ns == before


@pytest.mark.downstream
def test_draws_what_is_true_and_what_is_found(tmp_path):
    """By mmdet, from the last checkpoint."""
    from mm_rotssl.datasets.synthetic.digit_scenes import write_scenes

    write_scenes(tmp_path / 'scenes', train=2, val=2, size=48)
    root = f'{tmp_path}/scenes/coco/'
    folder = tmp_path / 'run'
    cfg = read_config(
        DETECTOR,
        {
            'model.backbone.init_cfg': None,
            'train_cfg.max_iters': 1,
            'train_cfg.val_interval': 1,
            'default_hooks.checkpoint.interval': 1,
            'train_dataloader.dataset.data_root': root,
            'val_dataloader.dataset.data_root': root,
            'val_evaluator.ann_file': f'{root}annotations/'
            'instances_val2017.json',
            'work_dir': str(folder),
        },
    )
    Runner.from_cfg(cfg).train()
    made = transfer.Run('random', 0, folder, cfg)
    # of which mmdet gives no metrics at all
    assert transfer.final_metrics(made) == {}
    truths, found = transfer.draw_predictions(made, 9)
    assert len(truths) == len(found) == 2
    for number, (truth, prediction) in enumerate(
        zip(truths, found, strict=True)
    ):
        original = mmcv.imread(f'{root}val2017/val_{number:06d}.jpg')
        # small images are enlarged
        original = np.kron(original, np.ones((6, 6, 1), np.uint8))
        # gray, but for what is drawn; a network of one step finds nothing
        assert truth.shape == original.shape
        assert np.ptp(truth.astype(int), axis=2).max() > 50
        assert np.array_equal(prediction, original)
