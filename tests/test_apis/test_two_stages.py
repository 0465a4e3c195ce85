"""Both stages of Rotation Feature Decoupling, as their configs say."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.runner import Runner

from mm_rotssl.apis import (
    build_ordered_dataloader,
    estimate_rotation_noise,
    load_network,
    read_config,
    rotation_noise,
)
from mm_rotssl.evaluation.feature_store import FeatureStore

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
    with pytest.MonkeyPatch.context() as patch:
        # drawing takes longest
        patch.setattr(rotation_noise, 'plot_orientation', lambda *_: Figure())
        estimate_rotation_noise(folder / 'first.py', folder / 'noise', folds=2)
    return folder


def build(folder, work_dir, **options):
    """The second stage, before it runs."""
    cfg = read_config(folder / 'second.py', {'randomness.seed': 0, **options})
    cfg.work_dir = str(folder / work_dir)
    # two that start in one second would share their logs
    cfg.experiment_name = work_dir
    return Runner.from_cfg(cfg)


def train(folder, work_dir, **options):
    build(folder, work_dir, **options).train()
    checkpoint = torch.load(
        folder / work_dir / 'epoch_2.pth', weights_only=False
    )
    return checkpoint['state_dict']


def test_second_stage(folder):
    noise = str(folder / 'noise/rotation_noise.npz')
    state = train(
        folder, 'run', **{'train_dataloader.dataset.pipeline.0.file': noise}
    )
    bank = state['instance_head.memory.feature_bank']
    assert bank.shape == (48, 128)
    # every image was seen
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(48))
    (log,) = (folder / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    measured = [line for line in lines if 'decoupling/related' in line][-1]
    assert 'rotation/unrelated_accuracy' in measured
    # the same, from the checkpoint
    runner = build(folder, 'val')
    runner.load_checkpoint(str(folder / 'run/epoch_2.pth'))
    again = runner.val()
    names = [name for name in measured if '/' in name]
    assert len(names) > 8
    for name in names:
        assert again[name] == pytest.approx(measured[name]), name
    # the weights were used
    other = train(folder, 'without')
    name = 'head.fc.weight'
    assert not torch.equal(other[name], state[name])

    # and the result can be measured, though no dataset gives the bank rows
    cfg = read_config(folder / 'second.py')
    model = load_network(cfg, folder / 'run/epoch_2.pth')
    loader = build_ordered_dataloader(cfg.val_dataloader)
    found = FeatureStore().extract(model, loader)
    sizes = {name: len(feats) for name, feats in found.stages.items()}
    assert sizes == {'1': 30, '3': 30, 'embedding': 30}
    assert len(found.labels) == 30


def test_checkpoint_of_another_network(folder):
    cfg = read_config(folder / 'second.py')
    with pytest.raises(
        ValueError, match=r'(?s)another architecture.*missing in the file'
    ):
        load_network(cfg, folder / 'noise/fold0/epoch_1.pth')


def test_file_of_other_images(folder):
    noise = str(folder / 'noise/rotation_noise.npz')
    options = {
        'train_dataloader.dataset.pipeline.0.file': noise,
        'train_dataloader.dataset.indices': 50,
    }
    with pytest.raises(ValueError, match='2 of the 50 training ima') as error:
        build(folder, 'other', **options).train()
    assert 'are not among the 48' in str(error.value)
    # the first 48 are numbers 0 to 59 without every fifth
    assert 'digits/0060, digits/0061' in str(error.value)


def test_file_that_is_not_there(folder):
    options = {
        'train_dataloader.dataset.pipeline.0.file': str(folder / 'none.npz')
    }
    with pytest.raises(
        FileNotFoundError,
        match=r'none\.npz" of rotation proba.*with mm-rotssl estimate-noise',
    ):
        build(folder, 'none', **options).train()


def test_configs_name_the_file_that_the_first_stage_writes():
    """The commands in the comments belong together."""
    for path in (CONFIGS / 'feature_decoupling').glob('*.py'):
        text = path.read_text()
        if 'file=work_dirs' not in text:
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
        key = 'train_dataloader.dataset.pipeline.0.file'
        assert f'{key}={work_dir}/rotation_noise.npz' in text
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
