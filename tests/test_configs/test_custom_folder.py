"""The config for a folder of one's own, run as a user would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/rotnet/rotnet_resnet18_1xb64-100e_custom.py'

# A smaller network and one epoch.
SMALL = """
_base_ = ['{base}']
model = dict(
    backbone=dict(
        _delete_=True, type='mm_rotssl.NIN', base_channels=6,
        out_indices=(0, 1, 2, 3)),
    head=dict(in_channels=6))
train_cfg = dict(max_epochs=1)
train_dataloader = dict(batch_size=4, num_workers=2)
"""


def images(folder, count):
    rng = np.random.default_rng(count)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        shape = (int(rng.integers(20, 90)), int(rng.integers(20, 90)), 3)
        image = rng.integers(0, 256, shape, np.uint8)
        Image.fromarray(image).save(folder / f'{i}.jpg')


def config_with_validation(folder, labeled):
    """A copy of the config in which the commented lines are none."""
    text = CONFIG.read_text()
    rest = text[text.index('# train_cfg = dict(') :]
    lines = [line.removeprefix('# ') for line in rest.splitlines()]
    text = text.replace(rest, '\n'.join(lines) + '\n')
    text = text.replace('LABELED', str(labeled))
    text = text.replace('../_base_', str(ROOT / 'configs/_base_'))
    path = folder / 'validated.py'
    path.write_text(text)
    return path


def test_one_step_at_full_size(tmp_path):
    """The real network, two images, one step of the optimizer."""
    images(tmp_path / 'p', 2)
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path / 'w')
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'p')
    cfg.train_dataloader.num_workers = 0
    cfg.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(cfg)
    before = runner.model.head.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    runner.train()
    after = runner.model.head.state_dict()
    assert any(not before[name].equal(after[name]) for name in before)
    # the crop, not the image, is what the network sees
    assert runner.train_dataloader.dataset[0]['inputs'].shape == (3, 224, 224)


def test_values_at_the_top_are_used():
    text = CONFIG.read_text()
    for name, value in [
        ('data_root', "'/a/b'"),
        ('batch_size', '3'),
        ('num_workers', '7'),
        ('max_epochs', '11'),
        ('base_lr', '0.125'),
        ('crop_size', '96'),
        ('max_broken', '13'),
        ('checkpoint_interval', '17'),
    ]:
        text, count = re.subn(
            rf'^{name} = .*$', f'{name} = {value}', text, flags=re.M
        )
        assert count == 1, name
    text = text.replace("_base_ = ['../_base_/default_runtime.py']", '')
    cfg = Config.fromstring(text, '.py')
    loader = cfg.train_dataloader
    assert loader.dataset.data_root == '/a/b'
    assert loader.dataset.max_broken == 13
    assert loader.dataset.pipeline[1].scale == 96
    assert (loader.batch_size, loader.num_workers) == (3, 7)
    assert cfg.train_cfg.max_epochs == 11
    # the schedule follows
    assert not {'T_max', 'end'} & cfg.param_scheduler.keys()
    assert cfg.optim_wrapper.optimizer.lr == 0.125
    assert cfg.default_hooks.checkpoint.interval == 17


def test_rate_is_meant_for_the_batch_size():
    cfg = Config.fromfile(CONFIG)
    assert cfg.auto_scale_lr.base_batch_size == 64
    assert cfg.train_dataloader.batch_size == 64
    # the official 0.1 for 128 images, scaled linearly
    assert cfg.optim_wrapper.optimizer.lr == 0.1 * 64 / 128


def test_no_folder():
    cfg = Config.fromfile(CONFIG)
    with pytest.raises(
        ValueError, match=r'train_dataloader\.dataset\.data_root=FOLDER'
    ):
        Runner.build_dataloader(cfg.train_dataloader)


def test_broken_files_through_the_command_line(tmp_path):
    """Each is named once on the screen and once in the log file."""
    folder = tmp_path / 'p'
    images(folder, 10)
    (folder / 'sub').mkdir()
    (folder / 'sub' / 'empty.png').write_bytes(b'')
    (folder / 'text.jpg').write_text('no image')
    small = tmp_path / 'small.py'
    small.write_text(SMALL.format(base=CONFIG))
    command = [
        sys.executable,
        str(ROOT / 'tools/train.py'),
        str(small),
        f'--work-dir={tmp_path / "w"}',
        '--cfg-options',
        f'train_dataloader.dataset.data_root={folder}',
        'train_cfg.max_epochs=2',
    ]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
        },
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (log,) = (tmp_path / 'w').glob('*/*.log')
    for text in (result.stdout, log.read_text()):
        for name in ('sub/empty.png', 'text.jpg'):
            assert text.count(f'Broken image skipped: {folder}/{name}') == 1
    assert (tmp_path / 'w' / 'epoch_2.pth').is_file()


def test_commented_validation_works(tmp_path):
    images(tmp_path / 'p', 8)
    for split, count in (('train', 5), ('val', 3)):
        for label in ('cat', 'dog'):
            images(tmp_path / 'labeled' / split / label, count)
    path = config_with_validation(tmp_path, tmp_path / 'labeled')
    cfg = Config.fromfile(path)
    assert cfg.train_cfg.val_interval == 10
    cfg.work_dir = str(tmp_path / 'w')
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'p')
    for loader in (
        cfg.train_dataloader,
        cfg.val_dataloader,
        cfg.val_cfg.reference_dataloader,
    ):
        loader.num_workers = 0
        loader.batch_size = 4
    cfg.model.backbone = dict(
        type='mm_rotssl.NIN', base_channels=6, out_indices=(0, 1, 2, 3)
    )
    cfg.model.head.in_channels = 6
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    runner = Runner.from_cfg(cfg)
    assert runner.val_loop.reference_dataloader.dataset.metainfo[
        'classes'
    ] == (
        'cat',
        'dog',
    )
    metrics = runner.val()
    for name in ('rotation/accuracy', 'knn/stage1', 'knn/stage4'):
        assert 0 <= metrics[name] <= 100
