import math

import pytest
import torch
from tiny_run import TinyModel, build_runner

from mm_rotssl.engine.hooks import DivergenceCheckHook
from mm_rotssl.utils import InputError, read_checkpoint

HOOKS = ['DivergenceCheckHook', 'CheckpointCheckHook']


class Diverging(TinyModel):
    """The loss of some steps, counted from 1, is no number."""

    def __init__(self, *steps, value=math.nan, harm=True):
        super().__init__()
        self.steps = steps
        self.value = value
        self.harm = harm
        self.count = 0

    def forward(self, inputs, mode='tensor'):
        self.count += 1
        loss = self.loss(inputs)['loss']
        bad = self.count in self.steps
        factor = self.value if bad else 1.0
        other = loss * factor
        if bad and not self.harm:
            # as where mixed precision leaves out the step
            other = loss.detach() * 0 * factor + loss * 0
            other = other.detach() + loss * 0
        return dict(loss_fine=loss, loss_other=other)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_stops_before_saving(tmp_path, value):
    model = Diverging(*range(3, 99), value=value)
    runner = build_runner(tmp_path, HOOKS, model, epochs=5)
    with pytest.raises(InputError) as info:
        runner.train()
    message = str(info.value)
    assert 'loss_other is not finite since step 3 (epoch 2)' in message
    assert 'first parameter that is not is model.backbone.0.weight' in message
    last = tmp_path / 'epoch_1.pth'
    assert f'last finite checkpoint is "{last}"' in message
    # at once, as the weights will not mend
    assert model.count == 3
    assert sorted(p.name for p in tmp_path.glob('*.pth')) == [last.name]
    assert not read_checkpoint(last)['state_dict']['head.bias'].isnan().any()


def test_a_few_steps_are_enough(tmp_path):
    model = Diverging(*range(2, 99), harm=False)
    runner = build_runner(tmp_path, HOOKS, model, checkpoint=dict(interval=9))
    with pytest.raises(InputError, match=r'since step 2 .* all parameters'):
        runner.train()
    assert model.count == 4
    # nothing to go back to
    assert not list(tmp_path.glob('*.pth'))


def test_a_single_one_is_passed_over(tmp_path):
    model = Diverging(1, 2, 4, 5, harm=False)
    runner = build_runner(tmp_path, HOOKS, model)
    runner.train()
    assert runner.epoch == 3


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """Even if the loss does not see them."""
    model = TinyModel()
    model.register_parameter('spare', torch.nn.Parameter(torch.ones(2)))
    # nor may what has no value yet stop a run
    model.register_buffer('log_z', torch.tensor(math.nan))
    runner = build_runner(tmp_path, HOOKS, model)
    original = model.loss

    def loss(inputs):
        if runner.iter == 3:
            model.spare.data.fill_(math.inf)
        return original(inputs)

    model.loss = loss
    with pytest.raises(InputError, match=r'step 4 model\.spare is not'):
        runner.train()
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_1.pth']


@pytest.mark.parametrize('resume', [True, False])
def test_they_are_not_loaded(tmp_path, resume):
    build_runner(tmp_path, epochs=1).train()
    path = tmp_path / 'epoch_1.pth'
    checkpoint = read_checkpoint(path)
    checkpoint['state_dict']['head.bias'][0] = math.nan
    torch.save(checkpoint, path)
    runner = build_runner(tmp_path, HOOKS, resume=resume, load_from=str(path))
    with pytest.raises(InputError, match=r'has diverged: .*head\.bias'):
        runner.train()


def test_processes_stop_together(monkeypatch):
    """One sees it, and all are told at the same step."""
    module = 'mm_rotssl.engine.hooks.divergence_check_hook'
    monkeypatch.setattr(f'{module}.get_world_size', lambda: 2)
    told = []

    def all_reduce(count, op):
        assert op == 'max'
        told.append(int(count))
        count.fill_(3)

    class Runner:
        model = TinyModel()
        iter = 0
        epoch = 0
        work_dir = 'none'

    monkeypatch.setattr(f'{module}.all_reduce', all_reduce)
    hook, runner = DivergenceCheckHook(), Runner()
    for runner.iter in range(9):
        hook.after_train_iter(runner, 0, outputs=dict(loss=torch.ones(())))
    assert not told
    runner.iter = 9
    with pytest.raises(InputError, match='of another process is not finite'):
        hook.after_train_iter(runner, 0, outputs=dict(loss=torch.ones(())))
    with pytest.raises(InputError, match='of another process'):
        hook.after_train_epoch(runner)
    assert told == [0, 0]
