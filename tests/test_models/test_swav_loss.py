"""SwAV's loss against NumPy; two processes against one."""

import copy
from types import SimpleNamespace

import mmpretrain.models.losses.swav_loss as host
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import run_on_two
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.engine.hooks import SwAVHook
from mmpretrain.models import SwAV, SwAVHead
from torch import nn

from mm_rotssl.models import SwAVLoss
from mm_rotssl.ops import sinkhorn
from mm_rotssl.registry import MODELS

DIM, PROTOTYPES, VIEWS = 5, 7, 4
# the second view is not assigned, and the order is not that of the views
SETTINGS = dict(
    feat_dim=DIM,
    num_prototypes=PROTOTYPES,
    num_crops=[2, VIEWS - 2],
    crops_for_assign=[2, 0],
    epsilon=0.1,
    temperature=0.2,
)


def build(kind=SwAVLoss, **kwargs):
    torch.manual_seed(0)
    return kind(**{**SETTINGS, **kwargs}).double()


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def embeddings(step, images, views=VIEWS):
    """Of each view (V, B, D)."""
    return F.normalize(draw(views, images, DIM, seed=100 + step), dim=2)


def array(tensor):
    return tensor.detach().double().numpy()


def balance(scores, epsilon, iterations):
    """Sinkhorn by division, (N, K); only for moderate scores."""
    q = np.exp((scores - scores.max()) / epsilon)
    for _ in range(iterations):
        for k in range(q.shape[1]):
            q[:, k] /= q[:, k].sum()
        for n in range(q.shape[0]):
            q[n] /= q[n].sum()
    return q


def balance_logarithms(scores, epsilon, iterations):
    """The same for any scores."""
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q = log_q - np.logaddexp.reduce(log_q, 0, keepdims=True)
        log_q = log_q - np.logaddexp.reduce(log_q, 1, keepdims=True)
    return np.exp(log_q)


class Reference:
    """The loss with lists as queues, view by view."""

    def __init__(self, weight, length=0, start=0):
        self.weight = array(weight)
        self.length, self.start, self.steps = length, start, 0
        self.queues = [[] for _ in SETTINGS['crops_for_assign']]

    def __call__(self, feats):
        """Loss and its gradients by embeddings and prototypes."""
        feats = array(feats)
        w = self.weight / np.linalg.norm(self.weight, axis=1, keepdims=True)
        loss, by_scores = 0.0, np.zeros((*feats.shape[:2], len(w)))
        crops = SETTINGS['crops_for_assign']
        factor = 1 / (len(crops) * (VIEWS - 1) * feats.shape[1])
        for queue, crop in zip(self.queues, crops, strict=True):
            earlier = queue if self.steps >= self.start else []
            rows = np.stack([*feats[crop], *earlier]) @ w.T
            codes = balance(rows, SETTINGS['epsilon'], 3)[: feats.shape[1]]
            for view in range(VIEWS):
                if view == crop:
                    continue
                for b, code in enumerate(codes):
                    scores = feats[view, b] @ w.T / SETTINGS['temperature']
                    p = np.exp(scores) / np.exp(scores).sum()
                    loss -= factor * (code * np.log(p)).sum()
                    by_scores[view, b] += (
                        factor * (p - code) / SETTINGS['temperature']
                    )
            queue[:0] = list(feats[crop])
            del queue[self.length :]
        self.steps += 1
        return loss, by_scores @ w, np.einsum('vbk,vbd->kd', by_scores, feats)


def run(loss, feats):
    """Value and gradients by embeddings and prototypes."""
    feats = feats.clone().requires_grad_()
    loss.zero_grad()
    value = loss(feats.flatten(0, 1))
    value.backward()
    return value.detach(), feats.grad, loss.prototypes.weight.grad.clone()


def compare(found, want):
    for one, other in zip(found, want, strict=True):
        np.testing.assert_allclose(
            array(one), other, rtol=1e-9, atol=1e-12 * np.abs(other).max()
        )


# Sinkhorn.


@pytest.mark.parametrize('iterations', [1, 3, 20])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_sinkhorn(iterations, dtype):
    scores = draw(2, 3, 9, 4).to(dtype).clamp_(-1, 1)
    found = sinkhorn(scores, 0.05, iterations)
    assert found.dtype == dtype
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(
                found[i, j],
                balance(array(scores[i, j]), 0.05, iterations),
                rtol=1e-12 if dtype == torch.float64 else 1e-4,
                atol=1e-20,
            )


def test_sinkhorn_equals_the_host_on_one_process():
    scores = draw(12, 6).clamp_(-1, 1)
    found = host.distributed_sinkhorn(scores, 3, 1, 0.05)
    np.testing.assert_allclose(found, sinkhorn(scores), rtol=1e-12)


@pytest.mark.parametrize('size', [1.0, 30.0, 1e4])
def test_range(size):
    """Where exponentials overflow, or all of a row or a column vanish."""
    scores = size * draw(9, 4).float()
    # far below the others
    scores[2] -= 10 * size
    scores[:, 1] -= 10 * size
    found = sinkhorn(scores)
    want = balance_logarithms(array(scores), 0.05, 3)
    np.testing.assert_allclose(found, want, rtol=1e-3 * size, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    # or the test would say nothing
    finite = host.distributed_sinkhorn(scores, 3, 1, 0.05).isfinite().all()
    assert finite == (size == 1)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_sinkhorn_in_half_precision(dtype):
    scores = draw(9, 4).clamp_(-1, 1).to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        found = sinkhorn(scores)
    assert found.dtype == torch.float32
    want = balance(array(scores), 0.05, 3)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-20)


def test_sinkhorn_without_gradient():
    scores = draw(3, 2).requires_grad_()
    before = scores.detach().clone()
    assert not sinkhorn(scores).requires_grad
    assert torch.equal(scores, before)


@pytest.mark.parametrize('settings', [(0, 3), (-1, 3), (0.05, 0)])
def test_bad_settings_of_sinkhorn(settings):
    say = rf'epsilon={settings[0]} .*must be positive.*, {settings[1]}, at lea'
    with pytest.raises(ValueError, match=say):
        sinkhorn(torch.zeros(2, 2), *settings)


# The loss.


@pytest.mark.parametrize('images', [1, 6])
def test_without_a_queue(images):
    """As NumPy's and the host's, gradients included."""
    ours, theirs = build(), build(host.SwAVLoss)
    want = Reference(ours.prototypes.weight)
    for step in range(2):
        feats = embeddings(step, images)
        found = run(ours, feats)
        compare(found, want(feats))
        compare(found, [array(x) for x in run(theirs, feats)])
    assert torch.equal(ours.prototypes.weight, theirs.prototypes.weight)
    assert ours.queued.numel() == 0


@pytest.mark.parametrize(
    ('length', 'start'), [(3, 0), (4, 2), (10, 0), (10, 3), (100, 1)]
)
def test_with_a_queue(length, start):
    """Shorter than a batch, cut within one, and never full."""
    ours = build(queue_length=length, queue_start=start)
    want = Reference(ours.prototypes.weight, length, start)
    for step, images in enumerate((4, 4, 3, 4, 4, 2)):
        feats = embeddings(step, images)
        compare(run(ours, feats), want(feats))
        for rows, queue in zip(ours.queued, want.queues, strict=True):
            assert ours.filled == len(queue)
            np.testing.assert_array_equal(rows[: len(queue)], queue)
            assert not rows[len(queue) :].any()
        assert ours.steps == want.steps


def test_with_the_host_queue():
    """A full one, with which both start."""
    ours, theirs = build(queue_length=8), build(host.SwAVLoss)
    theirs.queue = F.normalize(draw(2, 8, DIM, seed=3), dim=2)
    ours.queued.copy_(theirs.queue)
    ours.filled.fill_(8)
    for step in range(3):
        feats = embeddings(step, 4)
        found = run(ours, feats)
        compare(found, [array(x) for x in run(theirs, feats)])
        assert torch.equal(ours.queued, theirs.queue)


def test_prototypes_have_length_one():
    loss = build()
    with torch.no_grad():
        loss.prototypes.weight.mul_(3)
    want = F.normalize(loss.prototypes.weight, dim=1)
    loss(embeddings(0, 2).flatten(0, 1))
    assert torch.equal(loss.prototypes.weight, want)


def test_evaluation_leaves_the_queue():
    """It is used, and neither filled nor counted."""
    loss = build(queue_length=6, queue_start=1)
    run(loss, embeddings(0, 4))
    twin = copy.deepcopy(loss).eval()
    before = copy.deepcopy(dict(twin.named_buffers()))
    with torch.no_grad():
        value = twin(embeddings(1, 4).flatten(0, 1))
    for name, buffer in twin.named_buffers():
        assert torch.equal(before[name], buffer), name
    assert value == run(loss, embeddings(1, 4))[0]
    assert loss.steps == 2


def test_frozen_prototypes():
    """Their gradient is zero, and all else as it would be."""
    frozen, free = build(frozen_steps=2), build()
    for step in range(3):
        feats = embeddings(step, 4)
        found, want = run(frozen, feats), run(free, feats)
        for one, other in zip(found[:2], want[:2], strict=True):
            assert torch.equal(one, other)
        assert want[2].abs().max() > 0.01
        if step < 2:
            assert not found[2].any()
        else:
            assert torch.equal(found[2], want[2])


def test_codes_carry_no_gradient():
    """Nor does the queue, nor is it changed with the embeddings."""
    loss = build(queue_length=6)
    feats = embeddings(0, 4).requires_grad_()
    loss(feats.flatten(0, 1))
    assert not loss.queued.requires_grad
    kept = loss.queued.clone()
    feats.data.zero_()
    assert torch.equal(loss.queued, kept)


def test_autocast():
    """The embeddings are of bfloat16, and nothing after them."""
    values = {}
    for half in (False, True):
        loss = build(queue_length=6).float()
        for step in range(3):
            x = embeddings(step, 4).flatten(0, 1).to(torch.bfloat16)
            x = x if half else x.float()
            x.requires_grad_()
            with torch.autocast('cpu', torch.bfloat16, enabled=half):
                value = loss(x)
            loss.zero_grad()
            value.backward()
        assert value.dtype == loss.queued.dtype == torch.float32
        values[half] = value, loss.prototypes.weight.grad, x.grad.float()
    assert values[True][0] == values[False][0]
    assert torch.equal(values[True][1], values[False][1])
    torch.testing.assert_close(
        values[True][2], values[False][2], rtol=0.01, atol=1e-6
    )
    # in float32
    want = Reference(build().prototypes.weight, 6)
    for step in range(3):
        expected = want(embeddings(step, 4))
    assert values[True][0].item() == pytest.approx(expected[0], rel=0.01)
    np.testing.assert_allclose(values[True][1], expected[2], atol=0.02)


# In the host.


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, DIM, 3)

    def forward(self, x):
        return (self.conv(x),)


def build_model(**kwargs):
    torch.manual_seed(0)
    loss = dict(SETTINGS, type='mm_rotssl.SwAVLoss', **kwargs)
    return SwAV(
        backbone=Backbone(),
        neck=dict(
            type='mmpretrain.SwAVNeck',
            in_channels=DIM,
            hid_channels=8,
            out_channels=DIM,
            norm_cfg=dict(type='BN1d'),
        ),
        head=dict(type='mmpretrain.SwAVHead', loss=loss),
        data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
    )


def train(model, optimizer, steps, part=slice(None)):
    losses = []
    for step in steps:
        sizes = (8, 8, 6, 6)
        inputs = [
            draw(6, 3, size, size, seed=10 * step + i).float()[part]
            for i, size in enumerate(sizes)
        ]
        optimizer.zero_grad()
        loss = model(inputs, mode='loss')['loss']
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def resume(part=slice(None), path=None):
    """Losses and states of a run, and of one that is stopped between."""

    def start():
        model = build_model(queue_length=9, queue_start=2, frozen_steps=3)
        # moves only what was trained
        return model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    whole, first, second = start(), start(), start()
    want = train(*whole, range(6), part)
    before = train(*first, range(3), part)
    torch.save([x.state_dict() for x in first], path)
    for x, state in zip(
        second, torch.load(path, weights_only=True), strict=True
    ):
        x.load_state_dict(state)
    found = torch.cat([before, train(*second, range(3, 6), part)])
    states = [dict(x[0].state_dict()) for x in (whole, second)]
    return dict(losses=[want, found], states=states)


def compare_resumed(found):
    assert torch.equal(*found['losses'])
    want, state = found['states']
    assert list(want) == list(state)
    for name, value in want.items():
        assert torch.equal(state[name], value), name
    assert want['head.loss_module.filled'] == 9
    assert want['head.loss_module.steps'] == 6


def test_resumed_equals_uninterrupted(tmp_path):
    compare_resumed(resume(path=tmp_path / 'state.pth'))


def test_in_the_head_of_the_host():
    head = SwAVHead(loss=dict(SETTINGS, type='mm_rotssl.SwAVLoss'))
    assert isinstance(head.loss_module, SwAVLoss)
    x = embeddings(0, 3).flatten(0, 1).float()
    torch.testing.assert_close(head.loss(x), copy.deepcopy(head).loss(x))
    built = MODELS.build(dict(type='mm_rotssl.SwAVLoss', feat_dim=2))
    assert built.prototypes.weight.shape == (3000, 2)
    assert built.num_views == 2
    assert built.crops_for_assign == [0, 1]


@pytest.mark.parametrize('length', [0, 8])
def test_with_the_hook_of_the_host(tmp_path, length):
    """It would set a queue, or none; both are refused at the first epoch."""
    model = build_model(queue_length=8)
    hook = SwAVHook(2, epoch_queue_starts=0, queue_length=length, feat_dim=DIM)
    runner = SimpleNamespace(
        model=model, work_dir=str(tmp_path), epoch=0, world_size=1
    )
    hook.before_run(runner)
    with pytest.raises(
        AttributeError, match=r'Remove SwAVHook.*queue_length.*frozen_steps'
    ):
        hook.before_train_epoch(runner)
    assert model.head.loss_module.queued.shape == (2, 8, DIM)
    # all else is assigned as ever
    model.head.loss_module.epsilon = 0.03
    assert model.head.loss_module.epsilon == 0.03


# Checkpoints.


def test_buffers():
    loss = SwAVLoss(queue_length=11, **SETTINGS)
    assert {n: (b.dtype, b.shape) for n, b in loss.named_buffers()} == {
        'queued': (torch.float32, (2, 11, DIM)),
        'filled': (torch.int64, ()),
        'steps': (torch.int64, ()),
    }
    assert list(loss.state_dict()) == [
        'queued',
        'filled',
        'steps',
        'prototypes.weight',
    ]


@pytest.mark.parametrize(
    'other',
    [
        dict(queue_length=7),
        dict(queue_length=0),
        dict(queue_length=9, crops_for_assign=[0]),
    ],
)
def test_checkpoint_of_another_queue(other):
    """None of its rows counts; the steps and the prototypes are taken."""
    saved = build(**{'queue_length': 9, **other})
    for step in range(3):
        run(saved, embeddings(step, 4))
    model = nn.ModuleDict(dict(loss=build(queue_length=9, queue_start=2)))
    if other == dict(queue_length=0):
        model = nn.ModuleDict(dict(loss=build(queue_length=5)))
    state = nn.ModuleDict(dict(loss=saved)).state_dict()
    kept = copy.deepcopy(state)
    mine = model['loss'].queued
    say = (
        rf'loss.queued is \({len(saved.queued)}, {saved.queue_length}, 5\) '
        rf'in the checkpoint, and \(2, {mine.shape[1]}, 5\) with '
        rf'queue_length={mine.shape[1]}, feat_dim=5'
    )
    with pytest.raises(RuntimeError, match=say):
        model.load_state_dict(state)
    # mmengine only warns
    load_state_dict(model, state)
    loss = model['loss']
    assert loss.filled == 0
    assert not loss.queued.any()
    assert loss.steps == 3
    assert torch.equal(loss.prototypes.weight, saved.prototypes.weight)
    # the checkpoint itself is not touched
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    want = Reference(saved.prototypes.weight)
    feats = embeddings(3, 4)
    compare(run(loss, feats), want(feats))


def test_checkpoint_of_the_host():
    theirs = build(host.SwAVLoss)
    with torch.no_grad():
        theirs.prototypes.weight.normal_()
    loss = build()
    with pytest.raises(RuntimeError, match=r'Missing key.*queued'):
        loss.load_state_dict(theirs.state_dict())
    load_state_dict(loss, theirs.state_dict())
    assert torch.equal(loss.prototypes.weight, theirs.prototypes.weight)


# Two processes.

# the first fills the queue in part, and the third cuts a batch
SIZES = (2, 3, 2, 3, 3)
LENGTH = 11


def sinkhorn_of(rank):
    """The host's and ours of half of the rows; and the reduced sums."""
    scores = draw(8, 3).clamp_(-1, 1)
    mine = scores[4 * rank : 4 * rank + 4]
    found = dict(
        host=host.distributed_sinkhorn(mine.clone(), 3, 2, 0.05),
        ours=sinkhorn(mine),
        # another number of rows
        uneven=sinkhorn(scores[:1] if rank == 0 else scores[1:]),
    )
    # a prototype that is far from the rows of the first process
    scores = mine.float()
    if rank == 0:
        scores[:, 0] -= 100
    calls = []
    reduce, host.all_reduce = host.all_reduce, calls.append
    host.distributed_sinkhorn(scores.clone(), 3, 2, 0.05)
    host.all_reduce = reduce
    return {
        **found,
        'calls': len(calls),
        'far': sinkhorn(scores),
        'far_scores': scores,
    }


def results_of(rank, loss, folder):
    """All that is done on two processes, which take long to start."""
    # what is handed to both is in memory that they share
    loss = copy.deepcopy(loss)
    # its tensors are in memory that both processes share
    loss = copy.deepcopy(loss)
    found = dict(sinkhorn=sinkhorn_of(rank), steps=[])
    for step, size in enumerate(SIZES):
        mine = slice(rank * size, (rank + 1) * size)
        feats = embeddings(step, 2 * size)[:, mine]
        found['steps'].append(run(loss, feats))
    found['state'] = dict(loss.state_dict())
    found['resumed'] = resume(
        slice(3 * rank, 3 * rank + 3), f'{folder}/state{rank}.pth'
    )
    before = copy.deepcopy(loss.state_dict())
    try:
        loss(embeddings(0, 2 + rank).flatten(0, 1))
    except ValueError as error:
        found['error'] = str(error)
    found['left'] = [
        bool(torch.equal(before[name], value))
        for name, value in loss.state_dict().items()
    ]
    return found


def queued():
    return build(queue_length=LENGTH, queue_start=1)


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    # built before there are processes
    folder = str(tmp_path_factory.mktemp('states'))
    return run_on_two(results_of, queued(), folder)


def test_sums_of_the_host(ranks):
    """Its assignments are those of each process alone.

    When this fails, upstream is mended.
    """
    scores = draw(8, 3).clamp_(-1, 1)
    whole = balance(array(scores), 0.05, 3)
    for rank, found in enumerate(ranks):
        rows = slice(4 * rank, 4 * rank + 4)
        alone = balance(array(scores[rows]), 0.05, 3)
        np.testing.assert_allclose(found['sinkhorn']['host'], alone)
        # far from the right ones
        assert np.abs(alone - whole[rows]).max() > 0.1


def test_reductions_of_the_host(ranks):
    """As many on all processes, or one waits for ever.

    When this fails, upstream is mended.
    """
    assert [found['sinkhorn']['calls'] for found in ranks] == [2, 1]


def test_sinkhorn_on_two_processes(ranks):
    scores = draw(8, 3).clamp_(-1, 1)
    want = balance(array(scores), 0.05, 3)
    for name in ('ours', 'uneven'):
        found = torch.cat([found['sinkhorn'][name] for found in ranks])
        np.testing.assert_allclose(found, want, rtol=1e-12)
    scores = torch.cat([found['sinkhorn']['far_scores'] for found in ranks])
    want = balance_logarithms(array(scores), 0.05, 3)
    found = torch.cat([found['sinkhorn']['far'] for found in ranks])
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-30)


def test_two_processes_equal_one(ranks):
    """Loss, gradients and queue, with a model built before the processes."""
    loss = queued()
    want = Reference(loss.prototypes.weight, LENGTH, 1)
    for step, size in enumerate(SIZES):
        feats = embeddings(step, 2 * size)
        whole = run(loss, feats)
        one, other = (found['steps'][step] for found in ranks)
        both = (
            (one[0] + other[0]) / 2,
            torch.cat([one[1], other[1]], 1) / 2,
            (one[2] + other[2]) / 2,
        )
        compare(both, [array(x) for x in whole])
        compare(both, want(feats))
    for name, value in loss.state_dict().items():
        for found in ranks:
            assert torch.equal(found['state'][name], value), name


def test_resumed_on_two_processes(ranks):
    for found in ranks:
        compare_resumed(found['resumed'])
    # the models go apart here, since no gradients are averaged
    states = [found['resumed']['states'][0] for found in ranks]
    for name in ('queued', 'filled', 'steps'):
        one, other = (state[f'head.loss_module.{name}'] for state in states)
        assert torch.equal(one, other)


def test_batches_of_different_sizes(ranks):
    """An error on both, so that none waits for the other."""
    for found in ranks:
        assert found['error'] == (
            'The processes have batches of [2, 3] images, and SwAVLoss '
            'needs them alike. Set train_dataloader.drop_last=True.'
        )
        assert all(found['left'])


# Errors.


@pytest.mark.parametrize(
    'shape', [(VIEWS, DIM + 1), (VIEWS + 1, DIM), (0, DIM), (VIEWS, 1, DIM)]
)
def test_bad_embeddings(shape):
    say = r'feat_dim=5 and num_crops that add up to 4: they must be \(4 \* B'
    with pytest.raises(ValueError, match=say):
        build()(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(
    ('kwargs', 'say'),
    [
        (dict(num_prototypes=0), 'num_prototypes=0 of SwAVLoss must be a pos'),
        (dict(num_prototypes=[3, 4]), r'\[3, 4\] .* several losses'),
        (dict(num_crops=[1], crops_for_assign=[0]), r'num_crops=\[1\].* two'),
        (dict(crops_for_assign=[]), r'crops_for_assign=\[\]'),
        (dict(crops_for_assign=[0, 4]), r'=\[0, 4\] .* one or more of 0..3'),
        (dict(crops_for_assign=[-1]), r'=\[-1\] .* one or more of 0..3'),
        (dict(temperature=0), 'temperature=0 and epsilon=0.1 of SwAVLoss mus'),
        (dict(epsilon=-0.1), 'temperature=0.2 and epsilon=-0.1 of SwAVLoss'),
        (dict(sinkhorn_iterations=0), 'sinkhorn_iterations=0 at least 1'),
        (dict(queue_length=-1), 'queue_length=-1, .* not be negative'),
        (dict(queue_start=-1), 'queue_start=-1 .* not be negative'),
        (dict(frozen_steps=-1), 'frozen_steps=-1 .* not be negative'),
    ],
)
def test_bad_settings(kwargs, say):
    with pytest.raises(ValueError, match=say):
        build(**kwargs)
