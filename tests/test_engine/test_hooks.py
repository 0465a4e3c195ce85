import io
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from rich.console import Console
from torch import nn

from mm_rotssl.engine.hooks import CheckpointCheckHook, ProgressBarHook
from mm_rotssl.engine.hooks import progress_bar_hook as bar_module
from mm_rotssl.engine.hooks.checkpoint_check_hook import check_state_dict


class Model(nn.Module):
    def __init__(self, width=3, extra=False):
        super().__init__()
        self.backbone = nn.Linear(2, width)
        self.head = nn.Linear(width, 4)
        if extra:
            self.backbone.more = nn.Linear(1, 1)


def guard(model, state_dict, resume):
    runner = SimpleNamespace(
        model=model, _resume=resume, _load_from='some/file.pth'
    )
    CheckpointCheckHook().after_load_checkpoint(
        runner, dict(state_dict=state_dict)
    )


@pytest.mark.parametrize('resume', [True, False])
def test_guard_passes_what_fits(resume):
    guard(Model(), Model().state_dict(), resume)
    # another precision is no other kind
    guard(Model(), Model().half().state_dict(), resume)


@pytest.mark.parametrize('resume', [True, False])
@pytest.mark.parametrize(
    ('state', 'message'),
    [
        (Model(4).state_dict(), 'backbone.weight: .4, 2. in the file, .3, 2.'),
        (Model(extra=True).state_dict(), 'unknown.*\n.*backbone.more.weight'),
        ({}, 'missing in the file.*\n.*backbone.weight'),
        (
            {k: v.to(torch.int8) for k, v in Model().state_dict().items()},
            'numbers of another kind.*\n.*backbone.weight: torch.int8 in the',
        ),
        (
            {k: v + 0j for k, v in Model().state_dict().items()},
            'numbers of another kind.*\n.*backbone.weight: torch.complex64 in',
        ),
    ],
)
def test_guard_stops_another_architecture(state, message, resume):
    with pytest.raises(ValueError, match=message) as info:
        guard(Model(), state, resume)
    assert 'some/file.pth' in str(info.value)


def test_guard_lets_a_new_head_in_but_not_in_a_resumed_run():
    state = Model().state_dict()
    del state['head.weight']
    guard(Model(), state, resume=False)
    with pytest.raises(ValueError, match=r'head\.weight'):
        guard(Model(), state, resume=True)


def test_guard_sees_through_wrappers_and_their_prefix():
    state = {f'module.{k}': v for k, v in Model().state_dict().items()}
    guard(Model(), state, resume=True)


def test_check_counts():
    with pytest.raises(ValueError, match='2 missing in the file'):
        check_state_dict(Model(), {}, 'x', prefix='head.')


@pytest.fixture
def runner():
    logger = logging.Logger('test')
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    file_handler = logging.FileHandler('/dev/null')
    logger.addHandler(file_handler)
    hub = MessageHub('test_progress_bar')
    yield SimpleNamespace(
        logger=logger,
        message_hub=hub,
        max_iters=6,
        iter=0,
        epoch=0,
        max_epochs=2,
    )
    file_handler.close()


def drive(hook: Hook, runner, terminal, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(
        bar_module,
        'Console',
        lambda: Console(file=out, force_terminal=terminal, width=160),
    )
    hook.before_train(runner)
    level = runner.logger.handlers[0].level
    for step in range(6):
        runner.iter, runner.epoch = step, step // 3
        runner.message_hub.update_scalar('train/loss', 1.5)
        if step == 3:
            runner.message_hub.update_scalar('val/knn/best', 91.25)
        hook.after_train_iter(runner, step)
    hook.after_train(runner)
    return out.getvalue(), level


def test_bar_in_a_terminal(runner, monkeypatch):
    text, level = drive(ProgressBarHook(), runner, True, monkeypatch)
    assert 'epoch 2/2' in text
    assert '6/6' in text
    assert 'loss 1.5' in text
    assert 'kNN % 91.2' in text
    assert 'rotation' not in text  # has no value
    assert level == logging.WARNING
    # the file kept everything, the terminal speaks again
    assert runner.logger.handlers[1].level == logging.NOTSET
    assert runner.logger.handlers[0].level == logging.NOTSET


def test_no_bar_elsewhere(runner, monkeypatch):
    text, level = drive(ProgressBarHook(), runner, False, monkeypatch)
    assert text == ''
    assert level == logging.NOTSET


def test_scalars_are_a_setting(runner, monkeypatch):
    hook = ProgressBarHook(scalars={'mine': 'train/loss'})
    text, _ = drive(hook, runner, True, monkeypatch)
    assert 'mine 1.5' in text
    assert 'loss 1.5' not in text


def test_values_of_tensors(runner, monkeypatch):
    runner.message_hub.update_scalar('train/rotation_accuracy', torch.ones(()))
    text, _ = drive(ProgressBarHook(), runner, True, monkeypatch)
    assert 'rotation % 1' in text
