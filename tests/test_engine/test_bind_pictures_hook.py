from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.runner import BaseLoop
from torch import nn

from mm_rotssl.datasets import Digits
from mm_rotssl.engine.hooks import BindPicturesHook, CheckpointGuardHook
from mm_rotssl.models import MemoryBank, NCELoss, NearestNeighbourQueue


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory = MemoryBank(feat_dim=4)
        self.loss_module = NCELoss()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = Head()
        self.told = None

    def bind_pictures(self, keys):
        self.told = keys


class Loop(BaseLoop):
    def run(self):
        pass


def digits(indices=20):
    return Digits(indices=indices, pipeline=[])


def bound(dataset, resume=False):
    """A runner whose hook has run."""
    runner = SimpleNamespace(
        model=Model(),
        train_dataloader=SimpleNamespace(dataset=dataset),
        _resume=resume,
        _load_from='some/file.pth',
    )
    runner._train_loop = Loop.__new__(Loop)
    BindPicturesHook().before_run(runner)
    return runner


def load(runner, state_dict):
    checkpoint = dict(state_dict=state_dict)
    for hook in (BindPicturesHook(), CheckpointGuardHook()):
        hook.after_load_checkpoint(runner, checkpoint)
    return checkpoint['state_dict']


def test_bank_and_model_are_told():
    runner = bound(digits())
    assert len(runner.model.head.memory) == 20
    assert runner.model.told[:6] == [
        f'digits/{i:04d}' for i in (0, 1, 2, 3, 5, 6)
    ]


def test_no_training_no_binding():
    runner = SimpleNamespace(_train_loop=dict(type='EpochBasedTrainLoop'))
    BindPicturesHook().before_run(runner)


def test_repeated_pictures_have_one_row():
    runner = bound(RepeatDataset(digits(), times=3))
    assert len(runner.model.head.memory) == 20


def test_joined_data_sets_are_refused():
    with pytest.raises(ValueError, match=r'20 \+ 5 pictures.*same index'):
        bound(ConcatDataset([digits(), digits(5)]))


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_same_pictures_resume(prefix):
    old = bound(digits()).model.state_dict()
    runner = bound(digits(), resume=True)
    state = load(runner, {prefix + k: v for k, v in old.items()})
    assert len(state) == len(old)


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize(
    ('indices', 'message'),
    [
        (19, '20 pictures then, 19 now. The rows'),
        # as many, another order
        ([*range(1, 20), 0], '20 now, others or in another order'),
    ],
)
def test_other_pictures(indices, message, prefix):
    old = bound(digits()).model.state_dict()
    old = {prefix + k: v for k, v in old.items()}
    with pytest.raises(ValueError, match=message):
        load(bound(digits(indices), resume=True), dict(old))
    # weights alone: all but the bank and its normaliser
    state = load(bound(digits(indices)), dict(old))
    assert sorted(state) == [
        f'{prefix}backbone.bias',
        f'{prefix}backbone.weight',
    ]


def test_bank_of_unknown_pictures():
    """A length of one's own and no hook: nothing to compare."""
    old = bound(digits()).model.state_dict()
    old['head.memory.fingerprint'] = torch.tensor(0)
    assert len(load(bound(digits(19)), dict(old))) == len(old)
    runner = bound(digits(), resume=True)
    assert len(load(runner, dict(old))) == len(old)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_queue_of_neighbours_stays_with_its_run(prefix):
    def filled(resume):
        runner = bound(digits(), resume=resume)
        runner.model.queue = NearestNeighbourQueue(length=3, dim=2)
        return runner

    old = filled(resume=False).model
    old.queue.push(torch.eye(2), torch.tensor([4, 7]))
    saved = {prefix + key: value for key, value in old.state_dict().items()}
    names = {f'{prefix}queue.{name}' for name in old.queue.state_dict()}
    assert len(names) == 4
    resumed = load(filled(resume=True), dict(saved))
    assert set(resumed) == set(saved)
    started = load(filled(resume=False), dict(saved))
    assert set(started) == set(saved) - names
