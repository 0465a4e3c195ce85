"""SGD on rows against PyTorch's on all, and against NumPy."""

import copy

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mm_rotssl.engine import RowSGD

SHAPES = ((6,), (4, 3), (2, 3, 2))


def values(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense_parameters():
    return [nn.Parameter(values(s, i)) for i, s in enumerate(SHAPES)]


def sparse_gradient(parameter, rows, seed=0):
    """With a row of its own for each entry of ``rows``."""
    entries = values((len(rows), *parameter.shape[1:]), seed)
    return torch.sparse_coo_tensor(
        torch.tensor(rows)[None],
        entries.to(parameter.dtype),
        parameter.shape,
        check_invariants=True,
    )


def set_dense_gradients(parameters, step):
    for place, parameter in enumerate(parameters):
        parameter.grad = values(parameter.shape, 100 * step + place)


def reference(parameter, grad, lr, weight_decay=0.0, maximize=False):
    """p -= lr * (g + wd * p) on the rows that have a g, one by one."""
    result = parameter.copy()
    rows, entries = grad._indices()[0].tolist(), grad._values().numpy()
    for row in set(rows):
        total = sum(e for r, e in zip(rows, entries, strict=True) if r == row)
        total = -total if maximize else total
        result[row] -= lr * (total + weight_decay * parameter[row])
    return result


@pytest.mark.parametrize(
    'settings',
    [
        {},
        dict(momentum=0.9),
        dict(momentum=0.9, dampening=0.5),
        dict(momentum=0.9, nesterov=True, weight_decay=0.01),
        dict(momentum=0.9, weight_decay=0.01, maximize=True),
    ],
)
def test_dense_parameters_as_by_sgd(settings):
    ours, theirs = dense_parameters(), dense_parameters()
    rows = nn.Parameter(values((5, 2), 9))
    # with a sparse one among them, and one without a gradient
    idle = nn.Parameter(torch.ones(2))
    row_sgd = RowSGD([ours[0], rows, *ours[1:], idle], 0.1, **settings)
    sgd = torch.optim.SGD(theirs, 0.1, **settings)
    for step in range(4):
        set_dense_gradients(ours, step)
        set_dense_gradients(theirs, step)
        rows.grad = sparse_gradient(rows, [1, 3], step)
        row_sgd.step()
        sgd.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
            assert torch.equal(one.grad, other.grad)
    assert idle.tolist() == [1, 1]
    # momentum is kept for the dense ones alone
    assert rows not in row_sgd.state or not row_sgd.state[rows]


@pytest.mark.parametrize(
    ('shape', 'settings'),
    [
        ((8, 3), {}),
        ((8,), dict(weight_decay=0.1)),
        ((8, 2, 3), dict(weight_decay=0.1, maximize=True)),
        # for them there is none
        ((8, 3), dict(momentum=0.9, weight_decay=0.1, nesterov=True)),
    ],
)
def test_sparse_gradients(shape, settings):
    parameter = nn.Parameter(values(shape, 0).double())
    optimizer = RowSGD([parameter], 0.5, **settings)
    known = {
        k: settings[k] for k in settings if k in ('weight_decay', 'maximize')
    }
    # unsorted, repeated, and none at all
    for step, rows in enumerate(([5, 0], [7, 2, 7, 7, 0], [3], [])):
        before = parameter.detach().clone()
        grad = sparse_gradient(parameter, rows, step)
        kept = grad.clone()
        parameter.grad = grad
        optimizer.step()
        want = reference(before.numpy(), grad, 0.5, **known)
        np.testing.assert_allclose(parameter.detach(), want, rtol=1e-12)
        untouched = [row for row in range(8) if row not in rows]
        assert torch.equal(parameter[untouched], before[untouched])
        assert not rows or not torch.equal(parameter, before)
        # left as it was
        assert parameter.grad is grad
        assert torch.equal(grad._indices(), kept._indices())
        assert torch.equal(grad._values(), kept._values())


def test_rows_of_an_embedding():
    """A gradient of PyTorch's own, and that of a coalesced tensor."""
    torch.manual_seed(0)
    one = nn.Embedding(20, 4, sparse=True)
    other = copy.deepcopy(one)
    other.sparse = False
    ours = RowSGD(one.parameters(), 0.3, momentum=0.9)
    # which has no weight decay here, and touches rows of gradient 0 not at all
    theirs = torch.optim.SGD(other.parameters(), 0.3)
    target = torch.randn(5, 4)
    for words in ([3, 3, 19, 0, 7], [7, 8, 7, 9, 3]):
        for table, optimizer in ((one, ours), (other, theirs)):
            optimizer.zero_grad()
            error = table(torch.tensor(words)) - target
            error.square().sum().backward()
        assert one.weight.grad.is_sparse
        one.weight.grad = one.weight.grad.coalesce()
        ours.step()
        theirs.step()
        torch.testing.assert_close(one.weight, other.weight)


def test_settings_of_each_group():
    pairs = [nn.Parameter(values((4, 2), i)) for i in range(2)]
    before = [p.detach().clone() for p in pairs]
    optimizer = RowSGD(
        [
            dict(params=[pairs[0]], lr=0.5, weight_decay=0.2),
            dict(params=[pairs[1]], maximize=True),
        ],
        lr=0.1,
    )
    for parameter in pairs:
        parameter.grad = sparse_gradient(parameter, [2, 1])
    optimizer.step()
    for parameter, first, settings in zip(
        pairs,
        before,
        (dict(lr=0.5, weight_decay=0.2), dict(lr=0.1, maximize=True)),
        strict=True,
    ):
        want = reference(first.numpy(), parameter.grad, **settings)
        np.testing.assert_allclose(parameter.detach(), want, rtol=1e-6)


def run(parameters, optimizer, steps):
    *dense, rows = parameters
    for step in steps:
        set_dense_gradients(dense, step)
        rows.grad = sparse_gradient(rows, [step % 5, 4, 0], step)
        optimizer.step()


def test_resumed_equals_uninterrupted(tmp_path):
    def start(lr):
        parameters = [*dense_parameters(), nn.Parameter(values((5, 2), 9))]
        return parameters, RowSGD(
            parameters, lr, momentum=0.9, weight_decay=0.01
        )

    whole, optimizer = start(0.1)
    run(whole, optimizer, range(6))

    first, optimizer = start(0.1)
    run(first, optimizer, range(3))
    torch.save((first, optimizer.state_dict()), tmp_path / 'state.pth')
    weights, state = torch.load(tmp_path / 'state.pth', weights_only=False)
    resumed, optimizer = start(7.0)
    for parameter, saved in zip(resumed, weights, strict=True):
        parameter.data.copy_(saved)
    optimizer.load_state_dict(state)
    # the learning rate is part of the state, and so is the momentum
    assert optimizer.param_groups[0]['lr'] == 0.1
    run(resumed, optimizer, range(3, 6))
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one, other)


def test_closure():
    parameter = nn.Parameter(torch.tensor([3.0, 4.0]))
    table = nn.Embedding(5, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = RowSGD([parameter, table.weight], 0.25)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum() / 2 + table(torch.tensor([3])).sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    loss = optimizer.step(closure)
    # once, and before anything is updated
    assert calls == [loss.item()]
    assert loss.item() == pytest.approx(12.5 + before[3].sum().item())
    assert parameter.tolist() == [2.25, 3]
    before[3] -= 0.25
    assert torch.equal(table.weight, before)
    assert optimizer.step() is None


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 2)
        self.head = nn.Module()
        self.head.fc = nn.Linear(2, 6)


def test_built_from_a_config():
    torch.manual_seed(0)
    model = Model()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(
                type='mm_rotssl.RowSGD',
                lr=0.02,
                momentum=0.9,
                weight_decay=0.5,
            ),
            paramwise_cfg=dict(
                custom_keys={
                    'head.fc': dict(lr_mult=10.0),
                    'head.fc.bias': dict(lr_mult=20.0, decay_mult=0.0),
                }
            ),
        ),
    )
    assert type(wrapper.optimizer) is RowSGD
    before = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        parameter.grad = (
            sparse_gradient(parameter, [4, 1])
            if name.startswith('head')
            else torch.ones_like(parameter)
        )
    wrapper.step()
    for name, lr, decay in (
        ('head.fc.weight', 0.2, 0.5),
        ('head.fc.bias', 0.4, 0.0),
    ):
        parameter = model.get_parameter(name)
        first = before.get_parameter(name).detach().numpy()
        want = reference(first, parameter.grad, lr, decay)
        np.testing.assert_allclose(parameter.detach(), want, rtol=1e-5)
    for name in ('weight', 'bias'):
        first = getattr(before.backbone, name).detach().numpy()
        np.testing.assert_allclose(
            getattr(model.backbone, name).detach(),
            first - 0.02 * (1 + 0.5 * first),
            rtol=1e-5,
        )
