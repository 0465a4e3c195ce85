"""Pseudo-labels that are made while training, in a real runner."""

import itertools
import math
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mm_rotssl.datasets import Digits
from mm_rotssl.engine import RelabelHook
from mm_rotssl.models import PseudoLabel

CONFIGS = Path(__file__).parents[2] / 'configs'
KINDS = {
    # from memory, of two views
    'v2': 'deepcluster_v2/deepcluster-v2_nin-w24_1xb128-20e_digits.py',
    # from passes, in eval mode; a new classifier each time
    'first': 'deepcluster/deepcluster_nin-w24_1xb128-20e_digits.py',
    # from passes in training mode
    'sela': 'sela/sela_nin-w24_1xb128-20e_digits.py',
}
IMAGES, BATCH = 40, 16
COUNTER = itertools.count()


def settings(kind, folder, epochs=3, **changes):
    cfg = Config.fromfile(CONFIGS / KINDS[kind])
    cfg.merge_from_dict(
        {
            'work_dir': str(folder),
            'experiment_name': f'test_relabeling_{next(COUNTER)}',
            'model.backbone.base_channels': 6,
            'train_cfg.max_epochs': epochs,
            'param_scheduler.T_max': 3,
            'param_scheduler.end': 3,
            'train_dataloader.batch_size': BATCH,
            'train_dataloader.dataset.indices': IMAGES,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'log_level': 'ERROR',
            **(
                {'model.neck.in_channels': 6}
                if kind == 'v2'
                else {'model.head.in_channels': 6}
            ),
            'model.head.num_classes': [5] if kind == 'first' else [5, 4],
            **({'model.labeler.channels': 4} if kind == 'first' else {}),
        }
    )
    cfg.merge_from_dict(changes)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


def hook_of(cfg, **changes):
    """Settings of the hook instead of the config's."""
    cfg.custom_hooks = [
        hook
        for hook in cfg.custom_hooks
        if hook['type'] != 'mm_rotssl.RelabelHook'
    ]
    cfg.custom_hooks.append(dict(type='mm_rotssl.RelabelHook', **changes))
    return cfg


@pytest.fixture
def relabeled(monkeypatch):
    """Before which steps, for which classifiers, and of which features."""
    found = []
    relabel = PseudoLabel.relabel

    def spy(self, feats, indices, heads, seed):
        found.append((seed[1], list(heads), feats.clone(), indices.clone()))
        return relabel(self, feats, indices, heads, seed)

    monkeypatch.setattr(PseudoLabel, 'relabel', spy)
    return found


def train(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize('kind', KINDS)
def test_at_the_beginning_of_each_epoch(tmp_path, relabeled, kind):
    cfg = hook_of(settings(kind, tmp_path), train_mode=kind == 'sela')
    runner = train(cfg)
    length = len(runner.train_dataloader)
    # batches of one size drop the rest, which has labels all the same
    assert length == IMAGES // BATCH
    assert [one[0] for one in relabeled] == [0, length, 2 * length]
    heads = list(range(len(cfg.model.head.num_classes)))
    for _, found, feats, indices in relabeled:
        assert found == heads
        assert sorted(indices.tolist()) == list(range(IMAGES))
        assert feats.shape[:2] == (2 if kind == 'v2' else 1, IMAGES)
    bank = runner.model.bank
    assert bank.stamp == 2 * length
    assert (bank.labels >= 0).all()
    scalars = runner.message_hub.log_scalars
    assert scalars['train/clusters_in_use'].current() == len(
        bank.labels[0].unique()
    )


def test_memories_are_filled_once_and_then_read(tmp_path, relabeled):
    runner = train(settings('v2', tmp_path))
    first, *others = relabeled
    # the first are those of the pass
    assert first[2].norm(dim=2).allclose(torch.ones(2, IMAGES), atol=1e-5)
    last = torch.stack([m.feature_bank for m in runner.model.memories])
    length = len(runner.train_dataloader)
    # since the last labels the images of an epoch have been stored anew, 32
    # of 40
    changed = (others[-1][2] != last).any(2).any(0).sum()
    assert changed == length * BATCH
    assert torch.equal(others[-1][3], torch.arange(IMAGES))


def stand_in(length, epochs):
    return SimpleNamespace(
        train_dataloader=range(length), max_iters=length * epochs
    )


@pytest.mark.parametrize(
    ('schedule', 'power'), [('quadratic', 2), ('linear', 1)]
)
def test_schedules(schedule, power, monkeypatch):
    hook = RelabelHook(times=100, schedule=schedule)
    monkeypatch.setattr(hook, '_parts', lambda _: iter([1]))
    hook.before_train(stand_in(1000, 400))
    moments = [(400 + 1.01) * (t / 99) ** power * 1000 for t in range(100)]
    want = [math.ceil(m) for m in moments if m < 400_000]
    assert len(hook.steps) == len(want)
    # the last digit may be rounded otherwise
    assert max(map(abs, np.subtract(hook.steps, want))) <= 1
    first = sum(step < 10_000 for step in hook.steps)
    # "sixteen of a hundred within the first ten epochs"
    assert first == (16 if power == 2 else 3)
    assert hook.steps[0] == 0
    for bad in (dict(times=1), dict(schedule='cubic')):
        with pytest.raises(ValueError, match='at least 2, and one of'):
            RelabelHook(**bad)


def test_one_classifier_in_turn(tmp_path, relabeled):
    cfg = hook_of(settings('sela', tmp_path), one_head=True, train_mode=True)
    train(cfg)
    assert [one[1] for one in relabeled] == [[0, 1], [1], [0]]


@pytest.mark.parametrize('kind', KINDS)
def test_resumed_equals_uninterrupted(tmp_path, kind, relabeled):
    changes = {'randomness.seed': None}
    cfg = settings(kind, tmp_path / 'whole', **changes)
    whole = train(hook_of(cfg, train_mode=kind == 'sela'))
    steps = [one[0] for one in relabeled]
    relabeled.clear()
    cfg = settings(kind, tmp_path / 'resumed', **changes)
    cfg.resume = True
    cfg.load_from = str(tmp_path / 'whole/epoch_1.pth')
    resumed = train(hook_of(cfg, train_mode=kind == 'sela'))
    assert [one[0] for one in relabeled] == steps[1:]
    state = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_labels_that_are_still_good_are_kept(tmp_path, relabeled):
    """Made once, before the first step."""
    changes = {'randomness.seed': 5}
    hook = dict(times=2, schedule='linear')
    whole = train(
        hook_of(settings('first', tmp_path / 'a', **changes), **hook)
    )
    assert [one[0] for one in relabeled] == [0]
    relabeled.clear()
    cfg = settings('first', tmp_path / 'b', **changes)
    cfg.resume = True
    cfg.load_from = str(tmp_path / 'a/epoch_2.pth')
    resumed = train(hook_of(cfg, **hook))
    assert not relabeled
    state = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_workers_that_stay_have_no_old_labels(tmp_path, monkeypatch):
    wrong = []
    loss, relabel = PseudoLabel.loss, PseudoLabel.relabel
    made = []

    def spy_relabel(self, *args):
        found = relabel(self, *args)
        made.append(self.bank.labels.clone())
        return found

    def spy_loss(self, inputs, data_samples=None):
        indices = [sample.sample_idx for sample in data_samples]
        seen = self.bank.read(torch.tensor(indices))
        wrong.append(not torch.equal(seen, made[-1][:, indices]))
        return loss(self, inputs, data_samples)

    monkeypatch.setattr(PseudoLabel, 'relabel', spy_relabel)
    monkeypatch.setattr(PseudoLabel, 'loss', spy_loss)
    cfg = settings(
        'first',
        tmp_path,
        **{
            'train_dataloader.num_workers': 1,
            'train_dataloader.persistent_workers': True,
        },
    )
    train(hook_of(cfg))
    assert len(made) == 3
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(made))
    assert len(wrong) == 6
    assert not any(wrong)


@pytest.mark.parametrize('train_mode', [False, True])
def test_what_a_pass_leaves_behind(tmp_path, monkeypatch, train_mode):
    """Random numbers go on as if there had been none; statistics move in
    training mode only."""
    found, modes = [], []
    relabel = RelabelHook._relabel
    step, embed = RelabelHook.before_train_iter, PseudoLabel.embed

    def spy_embed(self, views):
        modes.append(self.backbone.training)
        return embed(self, views)

    def spy(self, runner, prefix, dataset, model):
        before = {k: v.clone() for k, v in model.backbone.named_buffers()}
        modes.clear()
        relabel(self, runner, prefix, dataset, model)
        moved = any(
            not torch.equal(before[k], v)
            for k, v in model.backbone.named_buffers()
        )
        found.append((set(modes), moved, model.training))

    def spy_step(self, runner, *args, **kwargs):
        before = random.getstate(), np.random.get_state()[1].copy()
        torch_before = torch.get_rng_state()
        step(self, runner, *args, **kwargs)
        assert random.getstate() == before[0]
        assert (np.random.get_state()[1] == before[1]).all()
        assert torch.equal(torch.get_rng_state(), torch_before)

    monkeypatch.setattr(PseudoLabel, 'embed', spy_embed)
    monkeypatch.setattr(RelabelHook, '_relabel', spy)
    monkeypatch.setattr(RelabelHook, 'before_train_iter', spy_step)
    cfg = settings('sela', tmp_path, epochs=2)
    train(hook_of(cfg, train_mode=train_mode))
    assert found == [({train_mode}, train_mode, True)] * 2


def test_images_are_prepared_as_asked(tmp_path, monkeypatch):
    """Without random crops features of a pass are those of the images."""
    errors = []
    relabel = PseudoLabel.relabel

    def spy(self, feats, indices, *args):
        digits = Digits(pipeline=[], indices=IMAGES)
        images = torch.stack(
            [
                torch.from_numpy(digits.get_data_info(i)['img'])
                for i in indices.tolist()
            ]
        )
        inputs = (images.permute(0, 3, 1, 2).float() - 78) / 87
        self.eval()
        errors.append((self.embed([inputs]) - feats).abs().max().item())
        self.train()
        return relabel(self, feats, indices, *args)

    monkeypatch.setattr(PseudoLabel, 'relabel', spy)
    cfg = settings('first', tmp_path, epochs=2)
    runner = train(hook_of(cfg, pipeline=[dict(type='PackInputs')]))
    assert len(errors) == 2
    assert max(errors) < 1e-5
    # the training's own dataset keeps its pipeline
    assert len(runner.train_dataloader.dataset.pipeline.transforms) > 1
    # with random crops they are others
    errors.clear()
    train(hook_of(settings('first', tmp_path / 'again', epochs=1)))
    assert errors[0] > 1e-4


def test_the_optimizer_forgets_a_classifier_that_is_gone(
    tmp_path, monkeypatch
):
    sizes = []
    cfg = hook_of(settings('first', tmp_path, epochs=2))
    runner = Runner.from_cfg(cfg)
    step = RelabelHook.before_train_iter

    def spy(self, runner, *args, **kwargs):
        step(self, runner, *args, **kwargs)
        if runner.iter in self.steps:
            weight = runner.model.head.classifiers[0].weight
            other = next(runner.model.backbone.parameters())
            state = runner.optim_wrapper.optimizer.state
            sizes.append((weight in state, other in state))

    monkeypatch.setattr(RelabelHook, 'before_train_iter', spy)
    runner.train()
    assert sizes == [(False, False), (False, True)]


def test_nothing_takes_labels(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'npid/npid_nin-w24_1xb128-20e_digits.py')
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path),
            'experiment_name': f'test_relabeling_{next(COUNTER)}',
            'train_dataloader.dataset.indices': 16,
            'train_dataloader.batch_size': 16,
            'log_level': 'ERROR',
        }
    )
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks.append(dict(type='mm_rotssl.RelabelHook'))
    with pytest.raises(ValueError, match='no part of the model'):
        train(cfg)


@pytest.mark.parametrize('kind', ['essl', 'multi_task'])
def test_as_a_part_of_another_algorithm(tmp_path, relabeled, kind):
    cfg = settings('first', tmp_path, epochs=2)
    view = cfg.train_dataloader.dataset.pipeline[:-1]
    rotation = dict(type='mm_rotssl.RotationHead', in_channels=6)
    pooling = dict(type='mmpretrain.GlobalAveragePooling')
    model = cfg.model.to_dict()
    if kind == 'essl':
        cfg.model = dict(
            type='mm_rotssl.ESSL', algorithm=model, neck=pooling, head=rotation
        )
        cfg.train_dataloader.dataset.pipeline = [
            dict(
                type='MultiView',
                num_views=[1, 1],
                transforms=[view, [dict(type='Resize', scale=16)]],
            ),
            dict(type='PackInputs'),
        ]
    else:
        backbone = model.pop('backbone')
        cfg.model = dict(
            type='mm_rotssl.MultiTask',
            backbone=backbone,
            tasks=dict(
                clusters=model,
                rotation=dict(
                    type='mm_rotssl.RotNet', neck=pooling, head=rotation
                ),
            ),
        )
        dataset = cfg.train_dataloader.dataset.to_dict()
        cfg.train_dataloader.dataset = dict(
            type='mm_rotssl.StackedDataset',
            datasets=dict(
                clusters=dataset, rotation=dict(dataset, indices=24)
            ),
        )
    runner = train(hook_of(cfg, pipeline=[dict(type='PackInputs')]))
    name = 'algorithm' if kind == 'essl' else 'clusters'
    bank = runner.model.tasks[name].bank
    assert len(relabeled) == 2
    assert (bank.labels >= 0).all()
    assert bank.labels.shape == (1, IMAGES)
    assert runner.model.backbone.training
    tags = runner.message_hub.log_scalars
    assert f'train/tasks.{name}.clusters_in_use' in tags
