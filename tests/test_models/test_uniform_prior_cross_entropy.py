"""The loss of Self-Classifier against its formula, pair by pair."""

import functools
import itertools
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from gloo import run_on_two
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mm_rotssl.models import (
    UniformPriorCrossEntropy,
    uniform_prior_cross_entropy,
)
from mm_rotssl.registry import MODELS

# the folder exports the function under the name of its file
MODULE = sys.modules[UniformPriorCrossEntropy.__module__]


def by_hand(logits, num_global, row, column, eps):
    """Number by number, for the value."""
    views, size, classes = (range(n) for n in logits.shape)
    s = logits.double().tolist()
    total, pairs = 0.0, 0
    for i, j in itertools.permutations(views, 2):
        if i >= num_global and j >= num_global:
            continue
        pairs += 1
        for x in size:
            target = []
            for y in classes:
                over = sum(math.exp(s[i][z][y] / column) for z in size)
                target.append(math.exp(s[i][x][y] / column) / over)
            mass = max(sum(target), eps)
            for y in classes:
                shares = [
                    math.exp(s[j][z][y] / row)
                    / sum(math.exp(s[j][z][c] / row) for c in classes)
                    for z in size
                ]
                q = shares[x] / max(sum(shares), eps)
                q *= len(size) / len(classes)
                total -= target[y] / mass * math.log(q + eps) / len(size)
    return total / pairs


def reference(
    logits,
    num_global=2,
    row=0.1,
    column=0.05,
    eps=1e-12,
    detached=False,
    dtype=torch.float64,
):
    """Pair by pair as the released code has it, for the gradient."""
    s = logits.to(dtype)
    _, n, c = s.shape
    losses = []
    for i, j in itertools.permutations(range(len(s)), 2):
        if i < num_global or j < num_global:
            target = F.normalize((s[i] / column).softmax(0), 1, 1, eps)
            target = target.detach() if detached else target
            q = F.normalize((s[j] / row).softmax(1), 1, 0, eps)
            losses.append(-(target * (n / c * q + eps).log()).sum() / n)
    return sum(losses) / len(losses)


def draw(*shape, scale=0.3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*shape, generator=generator)
    return logits.to(dtype).requires_grad_()


def check(logits, *settings, rtol=1e-5, atol=5e-7):
    """Value and gradient."""
    (want,) = torch.autograd.grad(reference(logits, *settings), logits)
    loss = uniform_prior_cross_entropy(logits, *settings)
    assert loss.item() == pytest.approx(
        reference(logits, *settings).item(), rel=2e-6, abs=1e-7
    )
    (found,) = torch.autograd.grad(loss, logits)
    assert found.dtype == logits.dtype
    torch.testing.assert_close(found, want, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ('shape', 'num_global'),
    [
        ((2, 7, 5), 2),
        ((2, 5, 7), 1),
        ((3, 11, 3), 2),
        ((4, 1, 6), 3),
        ((5, 6, 1), 1),
        ((5, 13, 4), 5),
        ((8, 9, 11), 2),
        ((8, 9, 11), 7),
    ],
)
@pytest.mark.parametrize('settings', [(0.1, 0.05, 1e-12), (0.4, 0.3, 0.3)])
def test_value_and_gradient(shape, num_global, settings):
    logits = draw(*shape)
    check(logits, num_global, *settings)
    with torch.no_grad():
        loss = uniform_prior_cross_entropy(logits, num_global, *settings)
    want = by_hand(logits.detach(), num_global, *settings)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want, rel=2e-6, abs=1e-7)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('shape', [(2, 9, 12), (5, 12, 8)])
def test_sums_below_eps(shape, dtype):
    """Images and classes that have less than eps, and others."""
    logits = draw(*shape, dtype=dtype)
    row, column, eps = 0.15, 0.1, 0.5
    target = (logits / column).softmax(1).sum(2)
    share = (logits / row).softmax(2).sum(1)
    for sums in (target, share):
        assert (sums < eps).any()
        assert (sums > eps).any()
    check(logits, 2, row, column, eps)


@pytest.mark.parametrize(
    ('part', 'eps'),
    [(1, 1e-12), (24, 0.5), (25, 1e-12), (60, 0.5), (10**6, 0.5)],
)
def test_rows_are_worked_through_in_parts(part, eps, monkeypatch):
    # 24 numbers a row: parts of 1, 1, 1, 2 and all rows
    monkeypatch.setattr(MODULE, '_PART_CPU', part)
    check(draw(3, 7, 8), 2, 0.15, 0.1, eps)


@pytest.mark.parametrize('classes', [2, 10, 1000])
def test_collapse_gives_ln_c(classes):
    for scale in (0.0, 0.01, 1.0, 2.5):
        one = torch.zeros(4, 30, classes)
        one[:, :, -1] = scale
        loss = uniform_prior_cross_entropy(one)
        assert loss.item() == pytest.approx(math.log(classes), rel=1e-6)
    # so sure that the other classes have less than eps: a worse one
    one[:, :, -1] = 100
    loss = uniform_prior_cross_entropy(one)
    want = -math.log(1e-12) * (classes - 1) + math.log(classes)
    # float32 has steps of 1e-4 at 100 / 0.05
    assert loss.item() == pytest.approx(want / classes, rel=1e-4)
    # images alike, whatever the classes are
    alike = draw(4, 1, classes).detach().expand(4, 30, classes)
    loss = uniform_prior_cross_entropy(alike)
    assert loss.item() == pytest.approx(math.log(classes), rel=1e-5)


@pytest.mark.parametrize('classes', [2, 10, 50])
def test_equipartition_gives_0(classes):
    apart = torch.eye(classes).repeat(3, 1).expand(4, -1, -1)
    assert uniform_prior_cross_entropy(apart).item() < 0.02
    loss = uniform_prior_cross_entropy(10 * apart)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    # larger classes than others cost
    uneven = torch.cat([apart, apart[:, :1].expand(-1, 2 * classes, -1)], 1)
    loss = uniform_prior_cross_entropy(10 * uneven)
    assert loss.item() > 0.05


def article(one, other):
    """As an article on the method has it: both along the classes."""
    total = 0
    for target, prediction in ((one, other), (other, one)):
        p = F.normalize((target / 0.05).softmax(-1), 1, -1)
        q = F.normalize((prediction / 0.1).softmax(-1), 1, -1)
        q = len(q) / q.size(1) * q
        total = total - (p * q.log()).sum(1).mean() / 2
    return total.item()


def test_collapse_is_no_minimum():
    n, c = 32, 10
    balanced = 3 * F.one_hot(torch.arange(n) % c, c).float().expand(2, n, c)
    collapsed = 3 * F.one_hot(torch.zeros(n).long(), c).float()
    collapsed = collapsed.expand(2, n, c)
    least = -math.log(n / c)
    assert article(*collapsed) == pytest.approx(least, abs=1e-5)
    assert article(*collapsed) <= article(*balanced) + 1e-6
    for seed in range(5):
        assert article(*draw(2, n, c, seed=seed).detach()) > least
    loss = uniform_prior_cross_entropy(collapsed).item()
    assert loss == pytest.approx(math.log(c), rel=1e-6)
    assert uniform_prior_cross_entropy(balanced).item() < 0.02


def test_loss_of_a_fresh_network():
    """The official classifiers, before the images come apart."""
    generator = torch.Generator().manual_seed(0)
    common, *others = torch.randn(1 + 2 * 256, 128, generator=generator)
    feats = common + 0.05 * torch.stack(others).unflatten(0, (2, 256))
    feats = F.normalize(feats, dim=2)
    losses = []
    for count in (1000, 2000, 4000, 8000):
        weight = torch.randn(count, 128, generator=generator)
        logits = feats @ F.normalize(weight, dim=1).T
        losses.append(uniform_prior_cross_entropy(logits).item())
        assert losses[-1] == pytest.approx(math.log(count), abs=0.02)
    assert sum(losses) / 4 == pytest.approx(7.947, abs=0.02)


@pytest.mark.parametrize(
    ('num_views', 'num_global', 'pairs'),
    [(8, 2, 26), (2, 2, 2), (2, 1, 2), (8, 8, 56), (6, 1, 10)],
)
def test_pairs(num_views, num_global, pairs):
    """A view that knows nothing tells which ones it is compared with."""
    classes = 4
    sure = 100 * torch.eye(classes)
    # of a class that has nothing of an image, only eps remains
    as_target = -math.log(1e-12) * (classes - 1) / classes
    as_prediction = math.log(classes)
    for one in range(num_views):
        logits = sure.repeat(num_views, 1, 1)
        logits[one] = 0
        partners = num_views - 1 if one < num_global else num_global
        want = partners * (as_target + as_prediction) / pairs
        loss = uniform_prior_cross_entropy(logits, num_global)
        assert loss.item() == pytest.approx(want, rel=1e-6)
    if num_views > num_global + 1:
        # local views are never compared with one another
        logits = sure.repeat(num_views, 1, 1)
        logits[-1] = 0
        logits[-2] = sure.roll(1, 0)
        wrong = -math.log(1e-12)
        want = num_global * (as_target + as_prediction + 2 * wrong) / pairs
        loss = uniform_prior_cross_entropy(logits, num_global)
        assert loss.item() == pytest.approx(want, rel=1e-6)


def test_gradient_flows_through_targets():
    logits = draw(4, 9, 6)
    (found,) = torch.autograd.grad(uniform_prior_cross_entropy(logits), logits)
    (whole,) = torch.autograd.grad(reference(logits), logits)
    stopped = reference(logits, detached=True)
    (stopped,) = torch.autograd.grad(stopped, logits)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=5e-7)
    assert (found - stopped).norm() > 0.1 * whole.norm()


def test_a_image_below_all_others():
    """Its targets are 0: it counts as a prediction alone."""
    logits = draw(3, 6, 4, dtype=torch.float64).detach()
    logits[:, 2] -= 100
    logits.requires_grad_()
    assert not (logits / 0.05).softmax(1)[:, 2].any()
    check(logits, rtol=1e-9, atol=1e-12)
    check(logits.detach().float().requires_grad_(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('num_global', 'settings'),
    [(2, (0.1, 0.05, 1e-12)), (1, (0.2, 0.3, 1e-12)), (2, (0.3, 0.2, 0.5))],
)
def test_gradcheck(num_global, settings):
    logits = draw(3, 6, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: uniform_prior_cross_entropy(x, num_global, *settings),
        logits,
        atol=1e-6,
    )
    check(logits, num_global, *settings, rtol=1e-9, atol=1e-12)
    loss = uniform_prior_cross_entropy(logits, num_global, *settings)
    assert loss.dtype == torch.float64
    want = reference(logits, num_global, *settings)
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Only the logits were rounded, and at last the gradient."""
    logits = draw(4, 9, 6, dtype=dtype)
    loss = uniform_prior_cross_entropy(logits)
    assert loss.dtype == torch.float32
    want = reference(logits)
    assert loss.item() == pytest.approx(want.item(), rel=2e-6)
    (want,) = torch.autograd.grad(want, logits)
    loss.backward()
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(
        logits.grad.double(), want.double(), rtol=1e-2, atol=1e-5
    )
    with torch.autocast('cpu', dtype=dtype):
        again = uniform_prior_cross_entropy(logits)
    assert torch.equal(loss, again)


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.bfloat16, torch.float32]
)
@pytest.mark.parametrize('scale', [20, 1000])
def test_large_logits(dtype, scale):
    signs = draw(4, 9, 6).detach().sign()
    logits = (scale * signs).to(dtype).requires_grad_()
    loss = uniform_prior_cross_entropy(logits)
    # float32 has steps of 1e-3 at 1000 / 0.05
    want = reference(logits)
    assert loss.item() == pytest.approx(want.item(), rel=1e-3)
    (want,) = torch.autograd.grad(want, logits)
    loss.backward()
    torch.testing.assert_close(
        logits.grad.double(), want.double(), rtol=1e-2, atol=1e-2
    )


def gradient(loss, logits):
    return torch.autograd.grad(loss(logits), logits)[0].double()


@pytest.mark.parametrize(
    ('size', 'classes'), [(16, 10), (64, 50), (100, 700), (300, 20)]
)
@pytest.mark.parametrize('scale', [0.1, 0.3, 1, 2, 5, 20, 100])
def test_as_exact_as_the_formula(size, classes, scale):
    """In float32, beside the formula written down in float32."""
    ours = official = 0
    for seed in range(4):
        logits = draw(4, size, classes, scale=scale, seed=seed)
        want = gradient(reference, logits)
        found = gradient(uniform_prior_cross_entropy, logits)
        other = gradient(
            functools.partial(reference, dtype=torch.float32), logits
        )
        # where all is decided only what float32 cannot hold is left
        largest = want.abs().max().clamp(min=1e-7)
        ours += (found - want).abs().max() / largest / 4
        official += (other - want).abs().max() / largest / 4
    assert ours < 1.5 * official + 1e-6


def test_gradient_is_scaled():
    logits = draw(3, 9, 6)
    loss = uniform_prior_cross_entropy(logits)
    (want,) = torch.autograd.grad(loss, logits, retain_graph=True)
    # and nothing was used up
    (found,) = torch.autograd.grad(
        loss, logits, torch.tensor(-2.5), retain_graph=True
    )
    torch.testing.assert_close(found, -2.5 * want)
    (again,) = torch.autograd.grad(65536 * loss, logits)
    torch.testing.assert_close(again, 65536 * want)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_logits_are_left_alone(dtype):
    logits = draw(3, 9, 6, dtype=dtype)
    before = logits.detach().clone()
    uniform_prior_cross_entropy(logits).backward()
    assert torch.equal(logits.detach(), before)


def test_strides():
    """Transposed logits, and some that share memory."""
    logits = draw(6, 9, 3).detach().permute(2, 1, 0).requires_grad_()
    assert not logits.is_contiguous()
    check(logits)
    check(draw(9, 6).detach().expand(3, 9, 6).requires_grad_())


def test_memory():
    """For the backward pass the logits are kept, and some sums."""
    logits = draw(8, 200, 300)
    kept = []

    def note(tensor):
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = uniform_prior_cross_entropy(logits)
    assert sum(kept) < 1.1 * logits.numel() * 4
    loss.backward()


def test_module_passes_its_settings_on():
    logits = draw(3, 9, 6)
    settings = (1, 0.3, 0.2, 0.4)
    names = ('num_global', 'row_temperature', 'column_temperature', 'eps')
    loss = MODELS.build(
        dict(
            type='mm_rotssl.UniformPriorCrossEntropy',
            **dict(zip(names, settings, strict=True)),
        )
    )
    want = reference(logits, *settings)
    assert loss(logits).item() == pytest.approx(want.item(), rel=2e-6)
    default = UniformPriorCrossEntropy()(logits).item()
    want = reference(logits, 2, 0.1, 0.05, 1e-12)
    assert default == pytest.approx(want.item(), rel=2e-6)


@pytest.mark.parametrize(
    ('shape', 'kwargs', 'message'),
    [
        ((4, 3), {}, r'two or more views, \(V, B, C\), got \(4, 3\)\.$'),
        ((1, 4, 3), {}, r'got \(1, 4, 3\)\.$'),
        ((0, 4, 3), {}, r'got \(0, 4, 3\)\.$'),
        ((2, 0, 3), {}, r'got \(2, 0, 3\)\.$'),
        ((2, 4, 0), {}, r'got \(2, 4, 0\)\.$'),
        ((2, 4, 3, 1), {}, r'got \(2, 4, 3, 1\)\.$'),
        ((2, 4, 3), dict(num_global=0), r'num_global=0 must be in 1\.\.2'),
        ((2, 4, 3), dict(num_global=3), r'num_global=3 must be in 1\.\.2'),
        (
            (2, 4, 3),
            dict(row_temperature=0.0),
            r'row_temperature=0\.0, .*must be positive',
        ),
        (
            (2, 4, 3),
            dict(column_temperature=-1.0),
            r'column_temperature=-1\.0 .*must be positive',
        ),
        ((2, 4, 3), dict(eps=0), r'eps=0 must be positive'),
    ],
)
def test_bad_input(shape, kwargs, message):
    with pytest.raises(ValueError, match=message):
        uniform_prior_cross_entropy(torch.zeros(shape), **kwargs)


# Two processes.

# shape, with the images of both, and settings
CASES = (
    ((2, 10, 7), (2, 0.1, 0.05, 1e-12)),
    ((5, 6, 9), (2, 0.3, 0.2, 1e-12)),
    ((4, 8, 10), (1, 0.3, 0.2, 0.5)),
    ((8, 2, 5), (2, 0.2, 0.2, 1e-12)),
)


def rows_of(rank, count):
    return slice(None), slice(rank * count // 2, (rank + 1) * count // 2)


def train(shape, settings, rank=None):
    """Some steps of a small network on all images, or half of them."""
    # the second process starts from other weights
    torch.manual_seed(rank or 0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, shape[2]))
    wrapped, part = model, (slice(None), slice(None))
    if rank is not None:
        wrapped = DistributedDataParallel(model)
        part = rows_of(rank, shape[1])
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    generator = torch.Generator().manual_seed(1)
    steps = []
    for _ in range(3):
        inputs = 2 * torch.randn(*shape[:2], 4, generator=generator)
        loss = uniform_prior_cross_entropy(wrapped(inputs[part]), *settings)
        optimizer.zero_grad()
        loss.backward()
        grads = [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
        steps.append([loss.detach(), *grads])
    return steps


def losses_of_rank(rank):
    results = []
    for shape, settings in CASES:
        torch.manual_seed(rank)
        logits = draw(*shape)
        part = logits[rows_of(rank, shape[1])].detach().requires_grad_()
        with torch.no_grad():
            plain = uniform_prior_cross_entropy(part, *settings)
        loss = uniform_prior_cross_entropy(part, *settings)
        # as much as two losses in one step
        (2.0 * loss).backward()
        results.append(
            dict(
                plain=plain,
                loss=loss.detach(),
                grad=part.grad / 2,
                steps=train(shape, settings, rank),
            )
        )
    return results


@pytest.fixture(scope='module')
def ranks():
    return run_on_two(losses_of_rank)


@pytest.mark.parametrize('case', range(len(CASES)))
def test_two_processes_equal_one(case, ranks):
    shape, settings = CASES[case]
    parts = [results[case] for results in ranks]
    logits = draw(*shape)
    want = reference(logits, *settings)
    (grad,) = torch.autograd.grad(want, logits)
    losses = [part['loss'].item() for part in parts]
    assert losses[0] != losses[1]
    assert sum(losses) / 2 == pytest.approx(want.item(), rel=2e-6)
    for part in parts:
        assert torch.equal(part['plain'], part['loss'])
    # of the sum of both losses, of which DDP takes the mean
    found = torch.cat([part['grad'] for part in parts], 1) / 2
    torch.testing.assert_close(found, grad, rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize('case', range(len(CASES)))
def test_two_processes_train_as_one(case, ranks):
    whole = train(*CASES[case])
    for number, (want, *grads) in enumerate(whole):
        steps = [results[case]['steps'][number] for results in ranks]
        loss = (steps[0][0] + steps[1][0]) / 2
        torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-6)
        for step in steps:
            for found, grad in zip(step[1:], grads, strict=True):
                torch.testing.assert_close(found, grad, rtol=1e-4, atol=1e-6)


def test_processes_see_the_whole_batch(ranks):
    """A half of the batch alone gives another loss."""
    shape, settings = CASES[0]
    logits = draw(*shape).detach()
    for rank in range(2):
        alone = reference(logits[rows_of(rank, shape[1])], *settings).item()
        assert abs(ranks[rank][0]['loss'].item() - alone) > 0.03
