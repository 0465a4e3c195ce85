import itertools

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mm_rotssl.engine.hooks import TaskWeightHook

COUNTER = itertools.count()
DIGITS = dict(
    type='mm_rotssl.Digits', indices=12, pipeline=[dict(type='PackInputs')]
)
# per epoch, of 12 images in batches of 4
STEPS = 3


class Recorder(Hook):
    """Note the weights that each step is made with, and its losses."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.weights = {}
        self.losses = {}
        self.logged = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.weights[runner.iter] = dict(runner.model.weights)
        scalars = runner.message_hub.log_scalars
        if 'train/weight/a' in scalars:
            self.logged[runner.iter] = scalars['train/weight/a'].current()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=()):
        self.losses[runner.iter] = {
            name: value.item() for name, value in outputs.items()
        }


def task():
    return dict(
        type='mm_rotssl.RotNet',
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='mm_rotssl.RotationHead', in_channels=6),
    )


def build(tmp_path, *hooks, epochs=4, model=None, **settings):
    model = model or dict(
        type='mm_rotssl.MultiTask',
        backbone=dict(type='mm_rotssl.NIN', base_channels=6, num_stages=3),
        tasks=dict(a=task(), b=task()),
        weights=dict(a=0.3, b=0.5),
    )
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(
                type='mm_rotssl.StackedDataset',
                datasets=dict(a=DIGITS, b=DIGITS),
            ),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1)
        ),
        custom_hooks=[dict(type='mm_rotssl.EpochSeedHook'), *hooks],
        default_scope='mmpretrain',
        experiment_name=f'test_task_weight_{next(COUNTER)}',
        randomness=dict(seed=3),
        log_level='ERROR',
        **settings,
    )
    recorder = Recorder()
    runner.register_hook(recorder)
    return runner, recorder


def hook(name='a', **settings):
    return dict(type='mm_rotssl.TaskWeightHook', task=name, **settings)


@pytest.mark.parametrize(
    ('settings', 'points'),
    [
        # steps and weights between which the line is drawn
        (dict(end_iter=5), ([0, 5], [0, 1])),
        (dict(start=2.0, end=0.7, begin=3, end_iter=7), ([3, 7], [2, 0.7])),
        (dict(end_epoch=2), ([0, 2 * STEPS], [0, 1])),
        (
            dict(start=1.0, end=0.0, begin=1, end_epoch=3),
            ([STEPS, 3 * STEPS], [1, 0]),
        ),
    ],
)
def test_weights_of_all_steps(tmp_path, settings, points):
    runner, recorder = build(tmp_path, hook(**settings))
    runner.train()
    steps = list(range(4 * STEPS))
    assert list(recorder.weights) == steps
    want = np.interp(steps, *points)
    found = [recorder.weights[step]['a'] for step in steps]
    np.testing.assert_allclose(found, want, rtol=1e-12)
    # exact at the ends, where 0 leaves the task out
    assert {found[0], found[-1]} == set(map(float, points[1]))
    assert recorder.logged == dict(zip(steps, found, strict=True))
    assert all(w['b'] == 0.5 for w in recorder.weights.values())
    # and the step is made with it
    for step, weight in enumerate(found):
        assert (recorder.losses[step]['loss_a'] == 0) == (weight == 0)


SCHEDULE = hook(end=0.8, begin=1, end_epoch=3)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """The folder, the runner and what was recorded."""
    folder = tmp_path_factory.mktemp('uninterrupted')
    runner, recorder = build(folder, SCHEDULE)
    runner.train()
    return folder, runner, recorder


@pytest.mark.parametrize('stop', [1, 2, 3])
def test_resumed_equals_uninterrupted(tmp_path, uninterrupted, stop):
    """Before the task takes part, while its weight changes, and after."""
    folder, whole, steps = uninterrupted
    resumed, again = build(
        tmp_path,
        SCHEDULE,
        load_from=str(folder / f'epoch_{stop}.pth'),
        resume=True,
    )
    resumed.train()
    assert list(again.weights) == list(range(stop * STEPS, 4 * STEPS))
    for step, weights in again.weights.items():
        assert weights == steps.weights[step]
        assert again.losses[step] == steps.losses[step]
    want = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, want[name]), name


def test_the_schedule_makes_a_difference(tmp_path, uninterrupted):
    _, whole, _ = uninterrupted
    other, _ = build(tmp_path)
    other.train()
    one, other = (
        runner.model.state_dict()['tasks.a.head.fc.weight']
        for runner in (whole, other)
    )
    assert not torch.equal(one, other)


def test_weights_of_the_config_hold_when_it_is_resumed(tmp_path):
    build(tmp_path, hook(end_iter=3), epochs=1)[0].train()
    runner, recorder = build(
        tmp_path,
        epochs=2,
        load_from=str(tmp_path / 'epoch_1.pth'),
        resume=True,
    )
    runner.train()
    assert recorder.weights[STEPS] == dict(a=0.3, b=0.5)


def test_wrapped_model(tmp_path):
    runner, _ = build(tmp_path)
    runner.train()
    model = runner.model
    runner.model = nn.DataParallel(model)
    TaskWeightHook('b', start=0.25, end_iter=100).before_train(runner)
    runner._train_loop._iter = 0
    TaskWeightHook('b', start=0.25, end_iter=100).before_train_iter(runner, 0)
    assert model.weights['b'] == 0.25


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(start=-0.5, end_iter=3), r'start=-0\.5 of TaskWeightHook'),
        (dict(end=float('nan'), end_iter=3), 'end=nan of TaskWeightHook'),
        (dict(end=float('inf'), end_iter=3), 'end=inf of TaskWeightHook'),
        ({}, 'needs one of end_iter and end_epoch, got None and None'),
        (dict(end_iter=3, end_epoch=2), 'one of .* got 3 and 2'),
        (dict(begin=3, end_iter=3), 'begin=3 of .* below its end, 3'),
        (dict(begin=-1, end_epoch=3), 'begin=-1 of .* must not be negative'),
        (dict(end_iter=0), 'begin=0 of .* below its end, 0'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskWeightHook('a', **settings)


def test_no_such_task(tmp_path):
    runner, recorder = build(tmp_path, hook('c', end_iter=3))
    with pytest.raises(ValueError, match=r'weight of "c".*MultiTask of a, b'):
        runner.train()
    assert not recorder.losses


def test_another_model(tmp_path):
    model = dict(
        task(),
        backbone=dict(type='mm_rotssl.NIN', base_channels=6, num_stages=3),
    )
    runner, _ = build(tmp_path, hook(end_iter=3), model=model)
    with pytest.raises(ValueError, match=r'a RotNet, no mm_rotssl\.MultiTask'):
        runner.train()


def test_two_hooks_for_a_task(tmp_path):
    runner, _ = build(
        tmp_path, hook(end_iter=3), hook(end_iter=9), hook('b', end_iter=3)
    )
    with pytest.raises(ValueError, match='has 2 TaskWeightHooks for "a"'):
        runner.train()
