"""LARC against loops in NumPy, and against mmpretrain's LARS."""

import copy

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmpretrain.engine import LARS
from torch import nn

from mm_rotssl.engine import LARC

SHAPES = ((6,), (4, 3), (2, 3, 2), ())
# up and down, as with a warm-up
RATES = (0.0, 0.7, 2.0, 2.0, 0.3, 1.1)


def values(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def parameters():
    return [nn.Parameter(values(s, i)) for i, s in enumerate(SHAPES)]


def set_gradients(params, step):
    for place, parameter in enumerate(params):
        parameter.grad = values(parameter.shape, 100 * step + place + 50)


def norm(array):
    return sum(float(x) ** 2 for x in np.ravel(array)) ** 0.5


class Reference:
    """One parameter, as a NumPy array of float64."""

    def __init__(self, array):
        self.array = array.double().numpy().copy()
        self.buffer = None

    def step(
        self,
        grad,
        lr,
        momentum=0.0,
        weight_decay=0.0,
        trust_coefficient=0.001,
        clip=False,
        eps=1e-8,
        nesterov=False,
        dampening=0.0,
        maximize=False,
    ):
        grad = np.array(-grad if maximize else grad, dtype=np.float64)
        size, grad_size = norm(self.array), norm(grad)
        if size != 0 and grad_size != 0:
            local = trust_coefficient * size
            local /= grad_size + weight_decay * size + eps
            if clip:
                local = min(local / lr, 1) if lr else 1
            grad = (grad + weight_decay * self.array) * local
        if self.buffer is None:
            self.buffer = grad
        else:
            self.buffer = momentum * self.buffer + (1 - dampening) * grad
        move = grad + momentum * self.buffer if nesterov else self.buffer
        self.array = self.array - lr * move


def compare(params, references):
    for parameter, reference in zip(params, references, strict=True):
        np.testing.assert_allclose(
            parameter.detach().numpy(), reference.array, rtol=1e-12
        )


@pytest.mark.parametrize('foreach', [False, True])
@pytest.mark.parametrize(
    'settings',
    [
        {},
        dict(momentum=0.9, weight_decay=0.3, trust_coefficient=0.2),
        dict(momentum=0.9, weight_decay=1e-6, trust_coefficient=0.1, eps=0.5),
        dict(momentum=0.9, weight_decay=0.3, clip=True, trust_coefficient=1),
        dict(clip=True, trust_coefficient=100.0),
        dict(momentum=0.9, weight_decay=0.3, nesterov=True),
        dict(momentum=0.9, weight_decay=0.3, dampening=0.4),
        dict(momentum=0.9, weight_decay=0.3, maximize=True),
    ],
)
def test_several_steps(settings, foreach):
    params = parameters()
    references = [Reference(p.detach()) for p in params]
    idle = nn.Parameter(torch.ones(2))
    optimizer = LARC([idle, *params], 9.0, foreach=foreach, **settings)
    for step, lr in enumerate(RATES):
        optimizer.param_groups[0]['lr'] = lr
        set_gradients(params, step)
        kept = [p.grad for p in params]
        copies = [p.grad.clone() for p in params]
        assert optimizer.step() is None
        for reference, grad in zip(references, copies, strict=True):
            reference.step(grad.numpy(), lr, **settings)
        compare(params, references)
        # others may read them
        for parameter, grad, before in zip(params, kept, copies, strict=True):
            assert parameter.grad is grad
            assert torch.equal(grad, before)
        group = optimizer.param_groups[0]
        assert group['weight_decay'] == settings.get('weight_decay', 0)
    assert idle.tolist() == [1, 1]
    assert idle not in optimizer.state


def test_defaults():
    parameter = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    parameter.grad = torch.tensor([0.0, 2e-8], dtype=torch.float64)
    LARC([parameter], 10.0).step()
    # 0.001 * 5 / (2e-8 + 1e-8) * 2e-8 * 10
    want = [3, 4 - 0.05 * 2 / 3]
    np.testing.assert_allclose(parameter.detach(), want, rtol=1e-12)


def test_clip_bounds_the_rate_itself():
    """Where the local rate is above lr, plain SGD with weight decay."""
    ours, theirs = parameters(), parameters()
    for parameter in [*ours, *theirs]:
        parameter.grad = 1e-3 * torch.ones_like(parameter)
    LARC(ours, 0.01, 0.001, clip=True, weight_decay=1e-3).step()
    torch.optim.SGD(theirs, 0.01, weight_decay=1e-3).step()
    above = [0.001 * norm(p.detach()) / 1e-3 > 0.1 for p in ours]
    assert any(above)
    for one, other, is_above in zip(ours, theirs, above, strict=True):
        if is_above:
            torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


@pytest.mark.parametrize('clip', [False, True])
@pytest.mark.parametrize('foreach', [False, True])
def test_norms_of_zero(clip, foreach):
    """Neither a local rate nor weight decay, but the momentum."""
    settings = dict(momentum=0.5, weight_decay=0.2, clip=clip)
    first = [torch.zeros(3), torch.tensor([1.0, 2.0]), torch.zeros(2)]
    params = [nn.Parameter(tensor.double()) for tensor in first]
    references = [Reference(p.detach()) for p in params]
    optimizer = LARC(params, 0.5, foreach=foreach, **settings)
    for step in range(4):
        params[0].grad = torch.tensor([1.0, 0.0, -2.0]).double()
        # 0 at first, and after others
        params[1].grad = torch.tensor([0.0, step % 2]).double()
        params[2].grad = torch.zeros(2).double()
        optimizer.step()
        for parameter, reference in zip(params, references, strict=True):
            reference.step(parameter.grad.numpy(), 0.5, **settings)
        compare(params, references)
        if step == 0:
            # the whole gradient, and no decay
            assert params[0].tolist() == [-0.5, 0, 1]
            assert params[1].tolist() == [1, 2]
    assert params[1].tolist() != [1, 2]
    assert params[2].tolist() == [0, 0]


def test_settings_of_each_group():
    params = parameters()
    references = [Reference(p.detach()) for p in params]
    base = dict(
        lr=0.4,
        momentum=0.9,
        weight_decay=0.1,
        trust_coefficient=0.05,
        eps=0.2,
    )
    own = (
        {},
        dict(lr=0.2, weight_decay=0.0, eps=1e-3),
        dict(momentum=0.5, trust_coefficient=0.3),
        dict(clip=True),
    )
    optimizer = LARC(
        [dict(params=[p], **o) for p, o in zip(params[:3], own, strict=False)],
        **base,
    )
    # one that comes later
    optimizer.add_param_group(dict(params=[params[3]], **own[3]))
    for step in range(4):
        set_gradients(params, step)
        optimizer.step()
        for p, reference, o in zip(params, references, own, strict=True):
            reference.step(p.grad.numpy(), **{**base, **o})
    compare(params, references)


@pytest.mark.parametrize('weight_decay', [0.0, 0.1])
def test_lars_has_the_rate_in_its_momentum(weight_decay):
    settings = dict(momentum=0.9, weight_decay=weight_decay)

    def run(rates):
        ours, theirs = parameters(), parameters()
        larc = LARC(ours, 0.0, trust_coefficient=0.02, **settings)
        lars = LARS(theirs, 0.0, eta=0.02, **settings)
        for step, lr in enumerate(rates):
            for optimizer, params in ((larc, ours), (lars, theirs)):
                optimizer.param_groups[0]['lr'] = lr
                set_gradients(params, step)
                optimizer.step()
        return ours, theirs, lars

    for one, other in zip(*run([0.7] * 6)[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    # A rate that falls by 10 at the second step: the old moves of LARS go on
    # at the old rate.
    ours, theirs, lars = run([1.0, 0.1])
    for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        first = Reference(values(SHAPES[place], place))
        grad = values(SHAPES[place], place + 50).numpy()
        first.step(grad, 1.0, trust_coefficient=0.02, **settings)
        missing = 0.9 * (1.0 - 0.1) * first.buffer
        difference = (one - other).detach().numpy()
        np.testing.assert_allclose(difference, missing, rtol=1e-10)
        assert np.abs(missing).max() > 1e-3
        assert lars.state[other]['momentum_buffer'].shape == one.shape


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_resumed_equals_uninterrupted(tmp_path, momentum):
    settings = dict(weight_decay=0.01, trust_coefficient=0.1)

    def run(params, optimizer, steps):
        for step in steps:
            optimizer.param_groups[0]['lr'] = RATES[step]
            set_gradients(params, step)
            optimizer.step()

    def start(**kwargs):
        params = parameters()
        groups = [dict(params=params[:2]), dict(params=params[2:])]
        return params, LARC(groups, **kwargs)

    whole, optimizer = start(lr=0.1, momentum=momentum, **settings)
    run(whole, optimizer, range(6))

    first, optimizer = start(lr=0.1, momentum=momentum, **settings)
    run(first, optimizer, range(3))
    saved = dict(
        weights=[p.detach() for p in first], state=optimizer.state_dict()
    )
    torch.save(saved, tmp_path / 'state.pth')
    saved = torch.load(tmp_path / 'state.pth', weights_only=True)
    resumed, optimizer = start(lr=7.0)
    for parameter, weight in zip(resumed, saved['weights'], strict=True):
        parameter.data.copy_(weight)
    optimizer.load_state_dict(saved['state'])
    # all settings are part of the state
    assert optimizer.param_groups[1]['lr'] == 0.1
    assert optimizer.param_groups[1]['trust_coefficient'] == 0.1
    run(resumed, optimizer, range(3, 6))
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one, other)


def test_copied():
    params = parameters()
    both = params, LARC(params, 0.3, 0.05, momentum=0.9)
    set_gradients(params, 0)
    both[1].step()
    copied, other = copy.deepcopy(both)
    for each, optimizer in (both, (copied, other)):
        set_gradients(each, 1)
        optimizer.step()
    for one, twin in zip(params, copied, strict=True):
        assert one is not twin
        assert torch.equal(one, twin)


def test_closure():
    parameter = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    optimizer = LARC([parameter], 0.25, trust_coefficient=0.5, eps=0.0)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum() / 2
        loss.backward()
        calls.append(loss.item())
        return loss

    # the gradient is the parameter: a local rate of 0.5
    assert optimizer.step(closure).item() == 12.5
    assert calls == [12.5]
    assert parameter.tolist() == [2.625, 3.5]


def test_hooks_are_called_once():
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    optimizer = LARC([parameter], 0.1)
    # PyTorch lets the step of each class call them, once it has an instance
    torch.optim.SGD([parameter], 0.1)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append('before'))
    optimizer.register_step_post_hook(lambda *_: calls.append('after'))
    optimizer.step()
    assert calls == ['before', 'after']


def test_sparse_gradients_are_refused():
    rows = nn.Embedding(5, 2, sparse=True)
    rows(torch.tensor([1, 3])).sum().backward()
    optimizer = LARC(rows.parameters(), 0.1, momentum=0.9, weight_decay=0.5)
    before = rows.weight.detach().clone()
    grad = rows.weight.grad
    with pytest.raises(ValueError, match=r'shape \(5, 2\) is one. Use RowSGD'):
        optimizer.step()
    assert torch.equal(rows.weight, before)
    assert rows.weight.grad is grad
    assert optimizer.param_groups[0]['weight_decay'] == 0.5


@pytest.mark.parametrize(
    ('settings', 'say'),
    [
        (dict(trust_coefficient=0.0), r'trust_coefficient=0.0 .* positive'),
        (dict(trust_coefficient=-1), 'trust_coefficient=-1 '),
        (dict(trust_coefficient=float('nan')), 'trust_coefficient=nan '),
        (dict(eps=-1e-9), 'eps=-1e-09 .* at least 0'),
        (dict(lr=-0.1), 'learning rate: -0.1'),
        (dict(momentum=-0.1), 'momentum value: -0.1'),
        (dict(weight_decay=-0.1), 'weight_decay value: -0.1'),
        (dict(nesterov=True), 'Nesterov'),
        (dict(fused=True), 'fused=True'),
        (dict(differentiable=True), 'differentiable=True'),
    ],
)
def test_bad_settings(settings, say):
    params = [nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match=say):
        LARC(params, **{'lr': 0.1, **settings})


def test_bad_settings_of_a_group():
    groups = [dict(params=[nn.Parameter(torch.ones(2))], eps=-1.0)]
    with pytest.raises(ValueError, match=r'eps=-1\.0 '):
        LARC(groups, 0.1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)


def test_built_from_a_config():
    torch.manual_seed(0)
    model = Model().double()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(
                type='mm_rotssl.LARC', lr=0.4, momentum=0.9, weight_decay=0.1
            ),
            paramwise_cfg=dict(
                norm_decay_mult=0.0,
                custom_keys={
                    'head': dict(lr_mult=0.5, trust_coefficient=0.2),
                },
            ),
        ),
    )
    assert type(wrapper.optimizer) is LARC
    settings = {
        'backbone.0.': dict(weight_decay=0.1),
        'backbone.1.': dict(weight_decay=0.0),
        'head.': dict(lr=0.2, weight_decay=0.1, trust_coefficient=0.2),
    }
    names = [name for name, _ in model.named_parameters()]
    references = [Reference(p.detach()) for p in model.parameters()]
    inputs = torch.randn(8, 3, dtype=torch.float64)
    for _ in range(3):
        loss = model.head(model.backbone(inputs)).square().mean()
        # which backward pass, update and zero_grad are the wrapper's
        before = torch.autograd.grad(
            loss, list(model.parameters()), retain_graph=True
        )
        wrapper.update_params(loss)
        for name, reference, grad in zip(
            names, references, before, strict=True
        ):
            (own,) = [s for k, s in settings.items() if name.startswith(k)]
            reference.step(grad.numpy(), **{'lr': 0.4, 'momentum': 0.9, **own})
    # a bias in front of a normalization has a gradient of rounding errors
    for name, parameter, reference in zip(
        names, model.parameters(), references, strict=True
    ):
        if name != 'backbone.0.bias':
            np.testing.assert_allclose(
                parameter.detach(), reference.array, rtol=1e-9, atol=1e-12
            )
