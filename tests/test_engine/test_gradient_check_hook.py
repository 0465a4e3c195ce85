import pytest
import torch
from tiny_run import TinyModel, build_runner

from mm_rotssl.engine.hooks import GradientCheckHook
from mm_rotssl.utils import InputError

HOOKS = ['GradientCheckHook']


class Cut(TinyModel):
    """Without gradients of the backbone for so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def loss(self, inputs):
        self.steps -= 1
        feats = self.backbone(inputs)
        if self.steps >= 0:
            feats = feats.detach()
        return dict(loss=self.head(feats).square().mean())


def train(tmp_path, capsys, model, **settings):
    runner = build_runner(tmp_path, HOOKS, model, **settings)
    capsys.readouterr()
    runner.train()
    out = capsys.readouterr()
    return [x for x in (out.out + out.err).splitlines() if 'gradient' in x]


@pytest.mark.parametrize('epochs', [1, 3])
def test_a_backbone_without_gradients_stops_the_run(tmp_path, capsys, epochs):
    with pytest.raises(InputError, match=r'None of the 4 parameters') as info:
        train(tmp_path, capsys, Cut(99), epochs=epochs)
    assert 'model.backbone.0.weight, model.backbone.0.bias' in str(info.value)


def test_all_have_one(tmp_path, capsys):
    model = TinyModel()
    # a zero is one, as for a task of weight 0
    loss = model.loss
    model.loss = lambda inputs: dict(loss=loss(inputs)['loss'] * 0)
    assert train(tmp_path, capsys, model) == []
    assert not any(p._backward_hooks for p in model.parameters())


def test_the_rest_is_named_once(tmp_path, capsys):
    model = TinyModel()
    model.spare = torch.nn.Linear(2, 2)
    # a frozen part, a momentum encoder
    model.frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    (line,) = train(tmp_path, capsys, model)
    assert '2 of 8 trainable parameters' in line
    assert 'model.spare.weight, model.spare.bias. They' in line
    assert not any(p._backward_hooks for p in model.parameters())


def test_the_first_step_need_not_have_all(tmp_path, capsys):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2)
    assert train(tmp_path, capsys, Cut(1), optim_wrapper=wrapper) == []


def test_waits_no_longer_than_told(tmp_path):
    runner = build_runner(tmp_path, model=Cut(99))
    runner.register_hook(GradientCheckHook(steps=1))
    with pytest.raises(InputError):
        runner.train()
    assert runner.iter == 0
