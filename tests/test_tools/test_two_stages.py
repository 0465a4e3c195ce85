"""Both stages of Rotation Feature Decoupling, as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'

TINY = """
_base_ = ['{base}']
model = dict(
    backbone=dict(base_channels=6, num_stages=3, out_indices=(0, 2)),
    {model})
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=True)]
train_dataloader = dict(batch_size=16, dataset=dict(indices=48))
val_dataloader = dict(dataset=dict(indices=30))
val_cfg = dict(reference_dataloader=dict(dataset=dict(indices=48)))
default_hooks = dict(checkpoint=dict(interval=1))
"""
ROTNET = 'rotnet/rotnet_nin-w24_1xb128-15e_digits.py'
DECOUPLING = (
    'feature_decoupling/feature-decoupling_nin-w24_1xb128-15e_digits.py'
)
PARTS = (
    'neck=dict(in_channels=6, out_channels=8), rotation_channels=4, '
    'head=dict(in_channels=4), instance_head=dict(in_channels=4), '
    'noise_start_epoch=1'
)


def run(tool, *words, fails=False):
    result = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *map(str, words)],
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
    text = result.stdout + result.stderr
    assert (result.returncode != 0) == fails, text
    return text


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The first stage is done."""
    folder = tmp_path_factory.mktemp('two_stages')
    for name, base, model, epochs in (
        ('first.py', ROTNET, 'head=dict(in_channels=6)', 1),
        ('second.py', DECOUPLING, PARTS, 2),
    ):
        text = TINY.format(base=CONFIGS / base, model=model, epochs=epochs)
        (folder / name).write_text(text)
    run(
        'estimate_rotation_noise.py',
        folder / 'first.py',
        *('--folds', 2, '--work-dir', folder / 'noise'),
    )
    return folder


def test_second_stage(folder):
    noise = folder / 'noise/rotation_noise.npz'
    run(
        'train.py',
        folder / 'second.py',
        *('--work-dir', folder / 'run'),
        *('--cfg-options', f'model.noise_file={noise}', 'randomness.seed=0'),
    )
    state = torch.load(folder / 'run/epoch_2.pth', weights_only=False)[
        'state_dict'
    ]
    bank = state['instance_head.memory.feature_bank']
    assert bank.shape == (48, 128)
    # every image was seen
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(48))
    (log,) = (folder / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    measured = [line for line in lines if 'decoupling/related' in line][-1]
    assert 'rotation/unrelated_accuracy' in measured
    # the same, from the checkpoint
    text = run('test.py', folder / 'second.py', folder / 'run/epoch_2.pth')
    again = json.loads(text[text.index('\n{\n') : text.rindex('}') + 1])
    names = [name for name in measured if '/' in name]
    assert len(names) > 8
    for name in names:
        assert again[name] == pytest.approx(measured[name]), name
    # the weights were used
    run(
        'train.py',
        folder / 'second.py',
        *('--work-dir', folder / 'without'),
        *('--cfg-options', 'randomness.seed=0'),
    )
    other = torch.load(folder / 'without/epoch_2.pth', weights_only=False)
    name = 'head.fc.weight'
    assert not torch.equal(other['state_dict'][name], state[name])

    # and the result can be measured, though no dataset gives the bank rows
    text = run(
        'evaluation/evaluate_features.py',
        folder / 'second.py',
        folder / 'run/epoch_2.pth',
        *('--draws', 1, '--shots', 1, '--finetune-shots', 0),
    )
    assert 'rotation' in text


def test_checkpoint_of_another_network(folder):
    text = run(
        'test.py',
        folder / 'second.py',
        folder / 'noise/fold0/epoch_1.pth',
        fails=True,
    )
    assert 'missing in the file' in text
    assert 'another architecture' in text
    text = run(
        'test.py', folder / 'second.py', folder / 'none.pth', fails=True
    )
    assert 'none.pth" does not exist' in text


def test_file_of_other_images(folder):
    noise = folder / 'noise/rotation_noise.npz'
    text = run(
        'train.py',
        folder / 'second.py',
        *('--work-dir', folder / 'other'),
        '--cfg-options',
        f'model.noise_file={noise}',
        'train_dataloader.dataset.indices=50',
        fails=True,
    )
    assert '2 of the 50 training images are not among the 48' in text
    # the first 48 are numbers 0 to 59 without every fifth
    assert 'digits/0060, digits/0061' in text


def test_file_that_is_not_there(folder):
    text = run(
        'train.py',
        folder / 'second.py',
        *('--work-dir', folder / 'other'),
        *('--cfg-options', f'model.noise_file={folder}/none.npz'),
        fails=True,
    )
    assert 'none.npz" of rotation probabilities' in text
    assert 'estimate_rotation_noise.py' in text


def test_configs_name_the_file_that_the_first_stage_writes():
    """The commands in the comments belong together."""
    for path in (CONFIGS / 'feature_decoupling').glob('*.py'):
        text = path.read_text()
        if 'noise_file=work_dirs' not in text:
            continue
        (first,) = {
            word
            for word in text.replace('\n#', ' ').split()
            if word.startswith('configs/rotnet/')
        }
        rotnet = Config.fromfile(ROOT / first)
        decoupling = Config.fromfile(path)
        words = text.replace('\n#', ' ').split()
        work_dir = words[words.index('--work-dir') + 1]
        assert f'model.noise_file={work_dir}/rotation_noise.npz' in text
        for key in ('type', 'data_root', 'indices'):
            assert rotnet.train_dataloader.dataset.get(
                key
            ) == decoupling.train_dataloader.dataset.get(key)
        assert rotnet.model.get('rotations') == decoupling.model.get(
            'rotations'
        )
        assert (
            decoupling.model.noise_start_epoch
            < decoupling.train_cfg.max_epochs
        )
