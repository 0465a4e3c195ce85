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
    assert list(transfer.pretrained_places(model, 'model')) == [
        'model.backbone.init_cfg',
        'model.heads.0.shared.init_cfg',
    ]


def test_runs(tmp_path, config):
    files = [tmp_path / f'b{seed}.pth' for seed in (3, 5)]
    for file in files:
        file.touch()
    runs = transfer.plan_runs(
        config(
            "a=dict(init_cfg=dict(type='Pretrained')), "
            "b=dict(init_cfg=dict(type='Pretrained'))"
        ),
        dict(random=None, mine=f'{tmp_path}/b{{seed}}.pth', net='url://x'),
        tmp_path / 'out',
        [3, 5],
        ['train_cfg.max_iters=7'],
    )
    assert [(r.init, r.seed, r.folder.name) for r in runs] == [
        ('random', 3, 'random-seed3'),
        ('mine', 3, 'mine-seed3'),
        ('net', 3, 'net-seed3'),
        ('random', 5, 'random-seed5'),
        ('mine', 5, 'mine-seed5'),
        ('net', 5, 'net-seed5'),
    ]
    common = ['randomness.seed=5', 'train_cfg.max_iters=7']
    assert [r.options for r in runs[3:]] == [
        [*common, 'model.a.init_cfg=None', 'model.b.init_cfg=None'],
        *(
            [
                *common,
                f'model.a.init_cfg.checkpoint={file}',
                f'model.b.init_cfg.checkpoint={file}',
            ]
            for file in (files[1], 'url://x')
        ),
    ]


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
    return transfer.Run(name, seed, logs.parents[1], [])


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
    assert text.split('\n')[-2].split() == ['x', '-', '4.0']


def test_runs_the_training_command(monkeypatch, tmp_path):
    """Of this package, wherever it is installed; and only once."""
    commands = []

    def run(command, **settings):
        commands.append(command)
        settings['stdout'].write(b'trained')
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(transfer.subprocess, 'run', run)
    planned = transfer.Run('a', 0, tmp_path / 'a-seed0', ['x.y=1'])
    transfer.train(planned, 'config.py', jobs=1)
    assert commands == [
        [
            *(sys.executable, '-m', 'mm_rotssl', 'train', 'config.py'),
            *('--work-dir', str(planned.folder), '--resume'),
            *('--cfg-options', 'x.y=1'),
        ]
    ]
    assert (planned.folder / 'train.log').read_text() == 'trained'
    assert transfer.train(planned, 'config.py', jobs=1) == 0
    assert len(commands) == 1


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
        compare_transfer(*asked, seeds=[4], cfg_options=['work_dir=x'])


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
            cfg_options=[
                'train_cfg.max_iters=4',
                'train_cfg.val_interval=2',
                'default_hooks.logger.interval=2',
                'default_hooks.checkpoint.interval=4',
                *(
                    f'{loader}.dataset.data_root={root}'
                    for loader in ('train_dataloader', 'val_dataloader')
                ),
            ],
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
    made = transfer.Run('random', 0, tmp_path / 'run', [])
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
            'work_dir': str(made.folder),
        },
    )
    Runner.from_cfg(cfg).train()
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
