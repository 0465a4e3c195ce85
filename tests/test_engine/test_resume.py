"""A run that was stopped and resumed equals one that never was."""

import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mm_rotssl.datasets import (
    Digits,
    Neighbors,
    RotationNoise,
    image_keys,
)
from mm_rotssl.engine.hooks import EpochSeedHook

CONFIGS = Path(__file__).parents[2] / 'configs'
CONFIG = CONFIGS / 'rotnet/rotnet_nin-w24_1xb128-15e_digits.py'
DECOUPLING = (
    CONFIGS
    / 'feature_decoupling/feature-decoupling_nin-w24_1xb128-15e_digits.py'
)
COUNTER = itertools.count()


class Recorder(Hook):
    """Note the images of every step, as they come from the pipeline."""

    def __init__(self):
        self.epochs = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        inputs = data_batch['inputs']
        inputs = torch.stack(inputs) if isinstance(inputs, list) else inputs
        steps = self.epochs.setdefault(runner.epoch, [])
        steps.append(inputs.clone())


def run(
    folder,
    epochs,
    workers,
    resume=None,
    seed=None,
    without=None,
    validate=False,
    config=CONFIG,
    **settings,
):
    """Train and return the runner and the images of each epoch."""
    cfg = Config.fromfile(config)
    if isinstance(cfg.param_scheduler, list):
        # the same schedule whether or not the run is cut
        cfg.param_scheduler[0].update(T_max=3, end=3)
    cfg.merge_from_dict(
        {
            'work_dir': str(folder),
            'experiment_name': f'test_resume_{next(COUNTER)}',
            'model.backbone.base_channels': 6,
            'model.backbone.num_stages': 3,
            'model.backbone.out_indices': (2,),
            'model.head.in_channels': 6,
            'train_cfg.max_epochs': epochs,
            'train_dataloader.batch_size': 16,
            'train_dataloader.num_workers': workers,
            'train_dataloader.dataset.indices': 60,
            'val_dataloader.dataset.indices': 20,
            'val_cfg.reference_dataloader.dataset.indices': 30,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'randomness.seed': seed,
            'log_level': 'ERROR',
            **settings,
        }
    )
    dataset = cfg.train_dataloader.dataset
    if 'neighbors' in dataset:
        dataset.dataset.indices = dataset.pop('indices')
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if hook['type'] != without
    ]
    if resume is not None:
        cfg.resume = True
        cfg.load_from = str(resume)
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    return runner, recorder.epochs


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


# validation draws random numbers of its own
@pytest.mark.parametrize(('workers', 'validate'), [(0, True), (2, False)])
def test_resumed_equals_uninterrupted(tmp_path, workers, validate):
    # no seed is set: the resumed run must take it from the checkpoint
    whole, images = run(tmp_path / 'whole', 3, workers, validate=validate)
    checkpoint = tmp_path / 'whole' / 'epoch_1.pth'
    torch.manual_seed(0)
    resumed, again = run(
        tmp_path / 'resumed', 3, workers, checkpoint, validate=validate
    )
    assert resumed.seed == whole.seed
    assert sorted(again) == [1, 2]
    for epoch in (1, 2):
        assert same(again[epoch], images[epoch])
    # and the epochs, the workers, differ from one another
    assert not same(images[0], images[1])
    assert not same(images[1], images[2])
    want, got = (runner.model.state_dict() for runner in (whole, resumed))
    for name, value in want.items():
        assert torch.equal(value, got[name]), name
    want, got = (
        runner.optim_wrapper.state_dict() for runner in (whole, resumed)
    )
    assert want['param_groups'] == got['param_groups']
    for key, state in want['state'].items():
        for name, value in state.items():
            assert torch.equal(value, got['state'][key][name])


# The second stage of Rotation Feature Decoupling: weights from epoch 2 on.
SMALL_DECOUPLING = {
    'model.neck.in_channels': 6,
    'model.neck.out_channels': 8,
    'model.rotation_channels': 4,
    'model.head.in_channels': 4,
    'model.instance_head.in_channels': 4,
    'model.instance_head.num_negatives': 8,
    'model.noise_start_epoch': 2,
    'param_scheduler.1.begin': 3,
    'param_scheduler.1.end': 4,
    'param_scheduler.1.periods': [1],
}


@pytest.fixture
def weighted(tmp_path):
    """Settings with weights from a file."""
    keys = image_keys(Digits(pipeline=[], indices=60))
    noise = np.random.RandomState(0).rand(60, 4)
    path = tmp_path / 'p.npz'
    RotationNoise(keys, noise, (0, 90, 180, 270)).save(path)
    return {
        **SMALL_DECOUPLING,
        'config': DECOUPLING,
        'train_dataloader.dataset.pipeline.0.file': str(path),
    }


# stopped before the weights are used, and after
@pytest.mark.parametrize(
    ('z', 'stops'), [('first_batch', [1]), ('running_mean', [1, 3])]
)
def test_decoupling_resumed_equals_uninterrupted(tmp_path, weighted, z, stops):
    weighted['model.instance_head.loss.z'] = z
    whole, _ = run(tmp_path / 'whole', 4, 0, **weighted)
    state = whole.model.state_dict()
    bank = 'instance_head.memory.feature_bank'
    assert state[bank].shape == (60, 128)
    for epoch in stops:
        checkpoint = tmp_path / 'whole' / f'epoch_{epoch}.pth'
        saved = torch.load(checkpoint, weights_only=False)['state_dict']
        assert not torch.equal(saved[bank], state[bank])
        resumed, _ = run(
            tmp_path / f'resumed{epoch}', 4, 0, checkpoint, **weighted
        )
        for name, value in resumed.model.state_dict().items():
            assert torch.equal(value, state[name]), (epoch, name)


def test_npid_resumed_equals_uninterrupted(tmp_path):
    config = CONFIGS / 'npid/npid_nin-w24_1xb128-20e_digits.py'
    settings = {'config': config, 'model.head.memory': dict(feat_dim=8)}
    # this schedule has one part
    for key in ('T_max', 'end'):
        settings[f'param_scheduler.{key}'] = 3
    whole, _ = run(tmp_path / 'whole', 3, 0, **settings)
    checkpoint = tmp_path / 'whole/epoch_1.pth'
    resumed, _ = run(tmp_path / 'resumed', 3, 0, checkpoint, **settings)
    state = whole.model.state_dict()
    bank = 'head.memory.feature_bank'
    assert state[bank].shape == (60, 8)
    saved = torch.load(checkpoint, weights_only=False)['state_dict']
    assert not torch.equal(saved[bank], state[bank])
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_scan_resumed_equals_uninterrupted(tmp_path):
    config = CONFIGS / 'scan/scan_32c5-32c5-128f_1xb128-60e_digits.py'
    images = Digits(pipeline=[], indices=60)
    file = tmp_path / 'neighbors.npz'
    Neighbors(image_keys(images), np.arange(60)[:, None] ^ 1).save(file)
    settings = {
        'config': config,
        'load_from': None,
        'model.backbone': dict(
            _delete_=True,
            type='mm_rotssl.NIN',
            base_channels=6,
            num_stages=3,
            out_indices=(2,),
        ),
        'model.head.num_heads': 2,
        'train_dataloader.dataset.neighbors': str(file),
        'param_scheduler.T_max': 3,
        'param_scheduler.end': 3,
    }
    whole, _ = run(tmp_path / 'whole', 3, 0, **settings)
    checkpoint = tmp_path / 'whole/epoch_1.pth'
    resumed, _ = run(tmp_path / 'resumed', 3, 0, checkpoint, **settings)
    state = whole.model.state_dict()
    assert state['head.mean_losses'].any()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_weights_make_a_difference_from_their_epoch_on(tmp_path, weighted):
    run(tmp_path / 'with', 3, 0, seed=5, **weighted)
    weighted['train_dataloader.dataset.pipeline.0.file'] = None
    run(tmp_path / 'without', 3, 0, seed=5, **weighted)
    for epoch, equal in ((2, True), (3, False)):
        one, other = (
            torch.load(
                tmp_path / name / f'epoch_{epoch}.pth', weights_only=False
            )['state_dict']['head.fc.weight']
            for name in ('with', 'without')
        )
        assert equal == torch.equal(one, other)


def test_cut_run_equals_the_beginning(tmp_path):
    """Stop after one epoch, as one does, with the same configured seed."""
    whole, images = run(tmp_path / 'whole', 2, 0, seed=5)
    _, first = run(tmp_path / 'cut', 1, 0, seed=5)
    checkpoint = tmp_path / 'cut' / 'epoch_1.pth'
    resumed, _ = run(tmp_path / 'cut', 2, 0, checkpoint, seed=5)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    # the seed is what makes them equal
    _, other = run(tmp_path / 'other', 1, 0, seed=6)
    assert same(first[0], images[0])
    assert not same(other[0], images[0])


def test_without_the_hook_they_differ(tmp_path):
    """What the hook is for; if this fails the engine has learned it."""
    without = 'mm_rotssl.EpochSeedHook'
    _, images = run(tmp_path / 'whole', 2, 0, without=without)
    checkpoint = tmp_path / 'whole' / 'epoch_1.pth'
    _, again = run(tmp_path / 'resumed', 2, 0, checkpoint, without=without)
    assert not same(again[1], images[1])


def test_each_epoch_and_rank_draws_its_own(monkeypatch):
    def draw(seed, epoch, rank):
        monkeypatch.setattr(
            'mm_rotssl.engine.hooks.epoch_seed_hook.get_rank', lambda: rank
        )
        runner = SimpleNamespace(seed=seed, epoch=epoch)
        EpochSeedHook().before_train_epoch(runner)
        return random.random(), np.random.rand(), torch.rand(()).item()

    places = list(itertools.product((0, 1), repeat=3))
    draws = [draw(*place) for place in places]
    assert draws == [draw(*place) for place in places]
    for numbers in zip(*draws, strict=True):
        assert len(set(numbers)) == len(places)


def test_persistent_workers_are_warned_about(tmp_path, capsys):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path),
            'experiment_name': f'test_resume_{next(COUNTER)}',
            'train_cfg.max_epochs': 1,
            'train_dataloader.num_workers': 1,
            'train_dataloader.persistent_workers': True,
            'train_dataloader.dataset.indices': 8,
            'val_cfg': None,
            'val_dataloader': None,
            'val_evaluator': None,
        }
    )
    Runner.from_cfg(cfg).train()
    assert 'a resumed run will differ' in capsys.readouterr().out
