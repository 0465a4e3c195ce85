"""Configs for a folder of one's own: trained by the command line."""

import ast
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from stand_ins import draw_images

from mm_rotssl.cli import main
from mm_rotssl.datasets import (
    ImageFolder,
    Neighbors,
    image_keys,
    sample_seed_patches,
)

pytest_plugins = ['stand_ins']

ROOT = Path(__file__).parents[2]
CUSTOM = sorted(ROOT.glob('configs/*/*_custom.py'))
# What the runner reads.
READ = (
    *('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler'),
    *('train_cfg', 'default_hooks', 'custom_hooks'),
)


def test_every_method_has_one():
    methods = {
        path.parent.name for path in ROOT.glob('configs/*/metafile.yml')
    }
    assert {path.parent.name for path in CUSTOM} == methods


@pytest.mark.usefixtures('quick_runner')
@pytest.mark.parametrize('path', CUSTOM, ids=lambda path: path.stem)
def test_trains_on_eight_images(path, tmp_path, monkeypatch):
    folder, work_dir = tmp_path / 'images', tmp_path / 'run'
    draw_images(folder, 8, size=(64, 72))
    words = [
        *('mm-rotssl', 'train', path.stem, '--data', folder),
        *('--work-dir', work_dir, '--epochs', 1, '--batch-size', 4),
    ]
    options = ['train_dataloader.num_workers=0', 'randomness.seed=0']
    if path.parent.name in ('deepcluster', 'deepcluster_v2', 'sela'):
        options += ['model.head.num_classes=[4]']
    if path.parent.name == 'scan':
        images = ImageFolder(str(folder), pipeline=[])
        neighbors = Neighbors(image_keys(images), np.arange(8)[:, None] ^ 1)
        neighbors.save(tmp_path / 'neighbors.npz')
        options.append(
            f'train_dataloader.dataset.neighbors={tmp_path}/neighbors.npz'
        )
    if path.parent.name == 'deepcluster':
        options += ['model.labeler.channels=4']
    if path.parent.name == 'exemplar_cnn':
        images = ImageFolder(
            str(folder), pipeline=[dict(type='mmcv.LoadImageFromFile')]
        )
        seed_patches = sample_seed_patches(images, 8, scales=(1.0,))
        seed_patches.save(tmp_path / 'seeds.npz')
        options += [
            f'train_dataloader.dataset.seed_patches={tmp_path / "seeds.npz"}',
            'train_dataloader.dataset.num_deformations=1',
            'model.head.num_exemplars=8',
        ]
    else:
        words += ['--crop-size', 32]
    words += ['--cfg-options', *options]
    monkeypatch.setattr('sys.argv', [str(word) for word in words])
    main()
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    assert any(key.startswith('backbone.') for key in checkpoint['state_dict'])
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    last = [line for line in lines if 'loss' in line][-1]
    assert last['iter'] == 2
    assert math.isfinite(last['loss'])


def values_at_the_top(text):
    """Names and literal values of what people change most."""
    start = text.index('- What people change most -')
    end = text.index('# -----', start)
    found = {}
    for statement in ast.parse(text[start:end].partition('\n')[2]).body:
        assert isinstance(statement, ast.Assign)
        found[statement.targets[0].id] = ast.unparse(statement.value)
    return found


@pytest.mark.parametrize('path', CUSTOM, ids=lambda path: path.stem)
def test_opens_with_the_values_that_people_change(path):
    text = path.read_text().replace("'../", f"'{ROOT}/configs/")
    values = values_at_the_top(text)

    def read(text):
        cfg = Config.fromstring(text, '.py')
        return [cfg.get(key) for key in READ]

    original = read(text)
    assert values
    for name, value in values.items():
        if value == "''":
            other = "'other'"
        elif value == 'None':
            other = '2'
        elif value.startswith('dict'):
            other = value.replace('=', '=1 + ')
        elif value.startswith('['):
            other = '[3]'
        else:
            other = f'2 * {value}'
        changed, count = re.subn(
            rf'^{name} = .*$', f'{name} = {other}', text, flags=re.M
        )
        assert count == 1
        assert read(changed) != original, name
