"""SimCLR against NT-Xent in loops; two processes against one."""

import pytest
import torch
from gloo import run_on_two
from mmpretrain.models.selfsup import SimCLR as HostSimCLR
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mm_rotssl.models import SimCLR
from mm_rotssl.registry import MODELS

TEMPERATURE = 0.2
IMAGES = 6


class Backbone(nn.Module):
    """A tuple of maps, as backbones give."""

    def __init__(self, norm):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()

    def forward(self, x):
        return (self.norm(self.conv(x)).tanh(),)


class Neck(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 4)

    def forward(self, x):
        return (self.linear(x[0].mean((2, 3))),)


def build(kind=SimCLR, norm=False, dtype=torch.float64):
    torch.manual_seed(0)
    return kind(
        backbone=Backbone(norm),
        neck=Neck(),
        head=dict(
            type='mmpretrain.ContrastiveHead',
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
            temperature=TEMPERATURE,
        ),
        data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
    ).to(dtype)


def views(count=IMAGES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(count, 3, 6, 6, generator=generator, dtype=dtype)
        for _ in range(2)
    ]


def part_of(inputs, rank):
    half = len(inputs[0]) // 2
    return [view[rank * half : (rank + 1) * half] for view in inputs]


def nt_xent(first, second):
    """Pair by pair from the formula, of the embeddings (N, D) of two views."""
    # the host's constant
    rows = [row / (row.norm() + 1e-10) for row in [*first, *second]]
    total = 0
    for i in range(len(rows)):
        partner = (i + len(first)) % len(rows)
        against = [
            (rows[i] @ rows[k] / TEMPERATURE).exp()
            for k in range(len(rows))
            if k != i
        ]
        positive = rows[i] @ rows[partner] / TEMPERATURE
        total = total + sum(against).log() - positive
    return total / len(rows)


def reference(model, batches):
    """Loss and gradients in one process; batches are normalized apart."""
    found = []
    for batch in batches:
        # the order within a batch changes nothing
        feats = model.neck(model.backbone(torch.cat(batch)))[0]
        found.append(feats.chunk(2))
    first, second = (torch.cat(feats) for feats in zip(*found, strict=True))
    loss = nt_xent(first, second)
    return loss.item(), torch.autograd.grad(loss, list(model.parameters()))


def compare(grads, want, factor=1.0):
    assert len(grads) == len(want) > 0
    largest = max(grad.abs().max() for grad in want)
    for grad, value in zip(grads, want, strict=True):
        torch.testing.assert_close(
            grad, factor * value, rtol=1e-10, atol=1e-12 * float(largest)
        )


def grads_of(model):
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize('count', [1, 2, 5])
@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('kind', [SimCLR, HostSimCLR])
def test_loss_and_gradient(kind, count, norm):
    """On one process the host's are right too."""
    model, inputs = build(kind, norm), views(count)
    want, grads = reference(build(norm=norm), [inputs])
    samples = [DataSample() for _ in range(count)]
    loss = model(inputs, samples, mode='loss')['loss']
    loss.backward()
    assert loss.item() == pytest.approx(want, rel=1e-12)
    compare(grads_of(model), grads)


class Weighted(nn.Module):
    """A head with a parameter of its own, and another loss on each rank."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def loss(self, positive, negative):
        logits = self.scale * torch.cat([positive, negative], 1) / TEMPERATURE
        labels = torch.zeros(len(logits), dtype=torch.long)
        return self.weight * nn.functional.cross_entropy(logits, labels)


def step_of(rank, model):
    """Loss and gradients as DistributedDataParallel leaves them."""
    ddp = DistributedDataParallel(model, broadcast_buffers=False)
    loss = ddp(part_of(views(), rank), mode='loss')['loss']
    loss.backward()
    return dict(loss=loss.detach(), grads=grads_of(model))


def results_of(rank):
    """All that is done on two processes, which take long to start."""
    found = {
        name: {
            norm: step_of(rank, build(kind, norm)) for norm in (False, True)
        }
        for name, kind in (('host', HostSimCLR), ('ours', SimCLR))
    }
    model = build()
    model.head = Weighted(1 + 2 * rank)
    found['weighted'] = step_of(rank, model)
    try:
        build()(views(3 + rank), mode='loss')
    except ValueError as error:
        found['error'] = str(error)
    return found


@pytest.fixture(scope='module')
def ranks():
    return run_on_two(results_of)


@pytest.mark.parametrize('norm', [False, True])
def test_two_processes_equal_one(ranks, norm):
    """With batch normalization, one in which the halves go apart.

    The host's gradient is half of it. When that fails, upstream is mended.
    """
    halves = [part_of(views(), rank) for rank in range(2)]
    want, grads = reference(build(norm=norm), halves if norm else [views()])
    for found in ranks:
        for name, factor in (('host', 0.5), ('ours', 1.0)):
            loss = found[name][norm]['loss'].item()
            assert loss == pytest.approx(want, rel=1e-12)
            compare(found[name][norm]['grads'], grads, factor)


def test_mean_of_the_losses_of_all_processes(ranks):
    """Even if they differ; and of a parameter that comes after gathering."""
    model = build()
    model.head = Weighted((1 + 3) / 2)
    model(views(), mode='loss')['loss'].backward()
    for found in ranks:
        compare(found['weighted']['grads'], grads_of(model))


def test_batches_of_different_sizes(ranks):
    """An error on both, so that none waits for the other."""
    for found in ranks:
        assert found['error'] == (
            'The processes have batches of [3, 4] images, and SimCLR needs '
            'them alike. Set train_dataloader.drop_last=True.'
        )


@pytest.mark.parametrize(
    'inputs', [torch.zeros(4, 3, 9, 9), [torch.zeros(4, 3, 9, 9)] * 3, []]
)
def test_not_two_views(inputs):
    with pytest.raises(
        ValueError, match=r"two views.*type='MultiView', num_views=2.*train_d"
    ):
        build().loss(inputs)


def test_checkpoints_of_the_host():
    torch.manual_seed(5)
    host = build(HostSimCLR, norm=True)
    for p in host.parameters():
        nn.init.normal_(p)
    ours = build(norm=True)
    ours.load_state_dict(host.state_dict())
    assert list(ours.state_dict()) == list(host.state_dict())
    one, other = (m.loss(views(), [])['loss'].item() for m in (host, ours))
    assert one == pytest.approx(other, rel=1e-12)


def test_resumed_equals_uninterrupted(tmp_path):
    def train(model, optimizer, steps):
        for step in steps:
            inputs = [view.roll(step, 1) for view in views()]
            optimizer.zero_grad()
            model(inputs, mode='loss')['loss'].backward()
            optimizer.step()

    def start():
        model = build(norm=True)
        return model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    whole, first, resumed = start(), start(), start()
    train(*whole, range(6))
    train(*first, range(2))
    torch.save([part.state_dict() for part in first], tmp_path / 'state.pth')
    states = torch.load(tmp_path / 'state.pth', weights_only=True)
    for part, state in zip(resumed, states, strict=True):
        part.load_state_dict(state)
    train(*resumed, range(2, 6))
    for name, value in whole[0].state_dict().items():
        assert torch.equal(resumed[0].state_dict()[name], value), name


def test_autocast():
    losses, grads = [], []
    for half in (False, True):
        model = build(dtype=torch.float32)
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            loss = model(views(dtype=torch.float32), mode='loss')['loss']
        loss.backward()
        assert loss.dtype == torch.float32
        losses.append(loss.item())
        grads.append(torch.cat([grad.flatten() for grad in grads_of(model)]))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.005)
    # the network's layers are in bfloat16
    assert (grads[1] - grads[0]).norm() < 0.02 * grads[0].norm()


def test_similarity_in_float32_under_autocast():
    """Of embeddings between which bfloat16 does not tell."""
    model = build(dtype=torch.float32)
    angles = torch.linspace(0, 0.05, 2 * IMAGES)
    feats = torch.stack([angles.cos(), angles.sin()], 1)
    model.backbone = nn.Identity()
    model.neck.forward = lambda _: (feats,)
    seen = []
    model.head.loss = lambda positive, negative: seen.append(
        torch.cat([positive, negative], 1)
    )
    for half in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            model.loss(views(dtype=torch.float32))
    assert torch.equal(*seen)
    assert len(seen[0].unique()) > IMAGES


def test_built_by_name():
    model = MODELS.build(
        dict(
            type='mm_rotssl.SimCLR',
            backbone=Backbone(False),
            neck=Neck(),
            head=dict(
                type='mmpretrain.ContrastiveHead',
                loss=dict(type='mmpretrain.CrossEntropyLoss'),
            ),
            data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
        )
    )
    assert isinstance(model, SimCLR)
    assert isinstance(model, HostSimCLR)
    assert model.head.temperature == 0.1
