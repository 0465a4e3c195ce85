"""The nearest-neighbor queue against a list in Python."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import run_on_two
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mm_rotssl.models import NearestNeighborQueue
from mm_rotssl.models.memories import nearest_neighbor_queue
from mm_rotssl.registry import MODELS


def batch(seed, count, dim=6, images=20):
    generator = torch.Generator().manual_seed(seed)
    feats = F.normalize(torch.randn(count, dim, generator=generator), dim=1)
    return feats, torch.randint(images, (count,), generator=generator)


class Reference:
    """Pairs of an index and a feature, the oldest first."""

    def __init__(self, length):
        self.length = length
        self.pairs = []

    def push(self, feats, indices):
        pairs = zip(indices.tolist(), feats.double().numpy(), strict=True)
        self.pairs = (self.pairs + list(pairs))[-self.length :]

    def nearest(self, feats, indices):
        found = []
        for feat, index in zip(
            feats.double().numpy(), indices.tolist(), strict=True
        ):
            best, most = feat, -np.inf
            for other, row in self.pairs:
                if other != index and float(feat @ row) > most:
                    best, most = row, float(feat @ row)
            found.append(best)
        return np.stack(found)


def pairs_of(queue):
    """The rows that have been written, the oldest first."""
    rows = list(range(queue.length))
    here = int(queue.pointer)
    order = rows[here:] + rows[:here] if queue.is_full else rows[:here]
    return [
        (int(queue.indices[row]), queue.feats[row].tolist()) for row in order
    ]


def compare(queue, reference):
    ours = pairs_of(queue)
    assert [index for index, _ in ours] == [i for i, _ in reference.pairs]
    for (_, feat), (_, want) in zip(ours, reference.pairs, strict=True):
        assert feat == want.tolist()
    assert bool(queue.is_full) == (len(reference.pairs) == reference.length)


@pytest.mark.parametrize('length', [1, 2, 7, 24])
def test_batches_of_any_size(length):
    queue, reference = NearestNeighborQueue(length, 6), Reference(length)
    sizes = np.random.RandomState(length).randint(1, 9, 40).tolist()
    # exactly to the end, around it, and larger than the queue
    sizes[5] = length - int(sum(sizes[:5])) % length
    sizes[9:13] = [length, length + 1, 2 * length, 3 * length + 2]
    for seed, size in enumerate(sizes):
        feats, indices = batch(seed, size)
        if queue.is_full:
            np.testing.assert_allclose(
                queue.nearest(feats, indices),
                reference.nearest(feats, indices),
                rtol=1e-6,
            )
        queue.push(feats, indices)
        reference.push(feats, indices)
        compare(queue, reference)


def test_pieces(monkeypatch):
    """Of 3, 3 and 1 features, and one feature at a time."""
    queue, reference = NearestNeighborQueue(10, 6), Reference(10)
    for part in (queue, reference):
        part.push(*batch(0, 10))
    feats, indices = batch(1, 7)
    want = reference.nearest(feats, indices)
    whole = queue.nearest(feats, indices)
    np.testing.assert_allclose(whole, want, rtol=1e-6)
    for most in (39, 5):
        monkeypatch.setattr(nearest_neighbor_queue, 'MAX_SIMILARITIES', most)
        assert torch.equal(queue.nearest(feats, indices), whole)


def test_memory(monkeypatch):
    """No more similarities at a time than there should be."""
    monkeypatch.setattr(nearest_neighbor_queue, 'MAX_SIMILARITIES', 100)
    queue = NearestNeighborQueue(30, 6)
    queue.push(*batch(0, 30))
    shapes = []
    largest = torch.Tensor.max

    def spy(tensor, *args, **kwargs):
        shapes.append(tuple(tensor.shape))
        return largest(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, 'max', spy)
    queue.nearest(*batch(1, 8))
    assert shapes == [(3, 30), (3, 30), (2, 30)]


def test_never_a_copy_of_itself():
    """In a queue five times as long as the dataset."""
    images, copies = 8, 5
    generator = torch.Generator().manual_seed(0)
    base = F.normalize(torch.randn(images, 6, generator=generator), dim=1)
    queue = NearestNeighborQueue(images * copies, 6)
    reference = Reference(images * copies)
    for _ in range(copies):
        noise = 0.01 * torch.randn(images, 6, generator=generator)
        feats = F.normalize(base + noise, dim=1)
        for part in (queue, reference):
            part.push(feats, torch.arange(images))
    indices = torch.arange(images)
    found = queue.nearest(base, indices)
    # the five best rows are all of the image itself
    best = (base @ queue.feats.T).topk(copies, dim=1).indices
    assert (queue.indices[best] == indices[:, None]).all()
    np.testing.assert_allclose(
        found, reference.nearest(base, indices), rtol=1e-6
    )
    owners = (found[:, None] == queue.feats).all(2).int().argmax(1) % images
    assert (owners != indices).all()


def test_the_feature_itself_where_no_other_image_is():
    queue = NearestNeighborQueue(3, 2)
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    queue.push(rows, torch.tensor([4, 4, 4]))
    feats = torch.tensor([[0.6, 0.8], [0.6, 0.8]], requires_grad=True)
    found = queue.nearest(feats, torch.tensor([4, 5]))
    assert torch.equal(found, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    assert not found.requires_grad
    # a copy: what is done to it is not done to the feature
    found.zero_()
    assert feats[0, 0].item() == pytest.approx(0.6)


def test_neighbors_once_it_is_full():
    queue = NearestNeighborQueue(5, 6)
    query = batch(9, 2)
    for count, written in ((2, 0), (2, 2)):
        assert not queue.is_full
        say = f'{written} of 5 rows .* is_full first'
        with pytest.raises(ValueError, match=say):
            queue.nearest(*query)
        queue.push(*batch(count, count))
    assert not queue.is_full
    queue.push(*batch(3, 1))
    assert queue.is_full
    assert queue.nearest(*query).shape == (2, 6)
    # and stays so, in the middle of the second round
    queue.push(*batch(4, 2))
    assert queue.is_full
    assert int(queue.pointer) == 2


def test_no_row_is_written_twice(monkeypatch):
    """A GPU would write either; a CPU does not show it."""
    queue = NearestNeighborQueue(7, 6)
    written = []
    index_copy = torch.Tensor.index_copy_

    def spy(tensor, dim, places, source):
        written.append(places.tolist())
        return index_copy(tensor, dim, places, source)

    monkeypatch.setattr(torch.Tensor, 'index_copy_', spy)
    queue.push(*batch(0, 5))
    queue.push(*batch(1, 18))
    rows = [2, 3, 4, 5, 6, 0, 1]
    assert written == [rows[5:] + rows[:3]] * 2 + [rows] * 2


def test_first_rows():
    queue = NearestNeighborQueue(4, 3)
    assert not queue.feats.any()
    assert queue.indices.tolist() == [-1] * 4
    assert {name: (b.dtype, b.shape) for name, b in queue.named_buffers()} == {
        'fingerprint': (torch.int64, ()),
        'feats': (torch.float32, (4, 3)),
        'indices': (torch.int64, (4,)),
        'pointer': (torch.int64, ()),
        'is_full': (torch.bool, ()),
    }
    assert not list(queue.parameters())
    default = MODELS.build(dict(type='mm_rotssl.NearestNeighborQueue'))
    assert default.feats.shape == (262144, 128)


def run(queue, steps):
    found = []
    for step in steps:
        feats, indices = batch(step, 4)
        if queue.is_full:
            found.append(queue.nearest(feats, indices))
        queue.push(feats, indices)
    return found


@pytest.mark.parametrize('stop', [1, 3, 4])
def test_resumed_equals_uninterrupted(tmp_path, stop):
    """Before it is full, within its first round past the end, and later."""
    whole = NearestNeighborQueue(10, 6)
    want = run(whole, range(8))
    first = NearestNeighborQueue(10, 6)
    before = run(first, range(stop))
    torch.save(first.state_dict(), tmp_path / 'state.pth')
    resumed = NearestNeighborQueue(10, 6)
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    assert set(state) == set(dict(first.named_buffers()))
    resumed.load_state_dict(state)
    found = before + run(resumed, range(stop, 8))
    assert len(found) == len(want) == 5
    for one, other in zip(found, want, strict=True):
        assert torch.equal(one, other)
    for name, buffer in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], buffer)


@pytest.mark.parametrize('size', [(12, 6), (9, 6), (10, 5)])
def test_checkpoint_of_another_size(size):
    """Nothing is taken of it, above all not that it is full."""
    saved = NearestNeighborQueue(*size)
    saved.push(*batch(0, 13, dim=size[1]))
    model = nn.ModuleDict(dict(queue=NearestNeighborQueue(10, 6)))
    state = nn.ModuleDict(dict(queue=saved)).state_dict()
    say = (
        rf'queue.feats is \({size[0]}, {size[1]}\) in the checkpoint, and '
        r'\(10, 6\) with length=10 and dim=6'
    )
    with pytest.raises(RuntimeError, match=say):
        model.load_state_dict(state)
    # mmengine only warns
    load_state_dict(model, state)
    queue = model['queue']
    assert not queue.is_full
    assert queue.pointer == 0
    assert not queue.feats.any()
    assert queue.indices.tolist() == [-1] * 10


def test_checkpoint_without_a_queue():
    queue = NearestNeighborQueue(10, 6)
    with pytest.raises(RuntimeError, match=r'Missing key.*feats.*is_full'):
        queue.load_state_dict({})


def test_copied():
    queue, reference = NearestNeighborQueue(5, 6), Reference(5)
    for part in (queue, reference):
        part.push(*batch(0, 7))
    twin = copy.deepcopy(queue)
    queue.push(*batch(1, 3))
    compare(twin, reference)
    for part in (twin, reference):
        part.push(*batch(2, 4))
    compare(twin, reference)


# the second one past the end, the last larger than the queue
SIZES = (4, 5, 2, 3, 6)


def push_on_rank(rank):
    queue = NearestNeighborQueue(10, 6)
    found = []
    for seed, size in enumerate(SIZES):
        feats, indices = batch(seed, 2 * size)
        mine = slice(rank * size, (rank + 1) * size)
        if queue.is_full:
            found.append(queue.nearest(feats[mine], indices[mine]))
        queue.push(feats[mine], indices[mine])
    return queue.state_dict(), found


def test_two_processes_equal_one():
    (one, its), (other, others) = run_on_two(push_on_rank)
    queue, found = NearestNeighborQueue(10, 6), []
    for seed, size in enumerate(SIZES):
        feats, indices = batch(seed, 2 * size)
        if queue.is_full:
            found.append(queue.nearest(feats, indices))
        queue.push(feats, indices)
    for name, buffer in queue.state_dict().items():
        assert torch.equal(one[name], buffer)
        assert torch.equal(other[name], buffer)
    assert len(found) == 3
    for whole, *halves in zip(found, its, others, strict=True):
        assert torch.equal(torch.cat(halves), whole)


def test_no_gradient():
    queue = NearestNeighborQueue(6, 6)
    feats, indices = batch(0, 6)
    feats.requires_grad_()
    queue.push(feats, indices)
    found = queue.nearest(feats, indices)
    for tensor in (found, queue.feats, queue.indices, queue.pointer):
        assert not tensor.requires_grad
    # a copy of the features
    kept = queue.feats.clone()
    feats.data.zero_()
    assert torch.equal(queue.feats, kept)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    queue, reference = NearestNeighborQueue(9, 6), Reference(9)
    feats, indices = batch(0, 9)
    query, others = batch(1, 5)
    for part in (queue, reference):
        part.push(feats.to(dtype), indices)
    assert queue.feats.dtype == torch.float32
    compare(queue, reference)
    found = queue.nearest(query.to(dtype), others)
    assert found.dtype == torch.float32
    want = reference.nearest(query.to(dtype), others)
    np.testing.assert_allclose(found, want, rtol=1e-6)
    # the feature itself, too
    lonely = NearestNeighborQueue(1, 6)
    lonely.push(feats[:1], torch.tensor([3]))
    found = lonely.nearest(query[:1].to(dtype), torch.tensor([3]))
    assert found.dtype == torch.float32
    assert torch.equal(found, query[:1].to(dtype).float())


def test_similarity_in_float32_under_autocast():
    """Rows between which bfloat16 does not tell."""
    angles = torch.linspace(0, 0.05, 64)
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    queue = NearestNeighborQueue(64, 2)
    queue.push(rows, torch.arange(64))
    others = torch.full((64,), 99)
    with torch.autocast('cpu', torch.bfloat16):
        products = rows @ rows.T
        found = queue.nearest(rows, others)
    # or the test would say nothing
    assert products.dtype == torch.bfloat16
    assert (products.argmax(1) != torch.arange(64)).sum() > 30
    want = (rows.double() @ rows.double().T).argmax(1)
    assert torch.equal(want, torch.arange(64))
    # neighboring rows differ by 3e-7, of which float32 has a few steps
    assert (found - rows).norm(dim=1).max() < 1e-3


def test_warning_of_a_queue_longer_than_the_data_set(monkeypatch):
    said = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, 'log', lambda level, text: said.append((level, text))
    )
    queue = NearestNeighborQueue(5, 6)
    queue.bind_dataset(list('abcde'))
    queue.bind_dataset(list('abcdef'))
    assert not said
    queue.bind_dataset(list('abcd'))
    ((level, text),) = said
    assert level == 30
    assert text == (
        'The nearest-neighbor queue has length=5, and the training set 4 '
        'images: the queue holds images several times. Copies of an '
        'image are never its neighbors, so they cost memory and time for '
        'nothing. Set length to at most 4.'
    )


@pytest.mark.parametrize('method', ['push', 'nearest'])
@pytest.mark.parametrize(
    ('feats', 'indices', 'say'),
    [
        ((4, 5), (4,), r'\(4, 5\) .* dim=6: they must be \(B, 6\)'),
        ((6,), (6,), r'shape \(6,\) '),
        ((2, 4, 6), (2,), r'shape \(2, 4, 6\) '),
        ((4, 6), (3,), r'\(3,\) .* for 4 features: .* \(4,\), torch.int64'),
        ((4, 6), (4, 1), r'Indices of shape \(4, 1\)'),
        ((4, 6), (), r'Indices of shape \(\)'),
    ],
)
def test_bad_shapes(method, feats, indices, say):
    queue = NearestNeighborQueue(3, 6)
    queue.push(*batch(0, 3))
    before = copy.deepcopy(queue.state_dict())
    with pytest.raises(ValueError, match=say):
        getattr(queue, method)(
            torch.rand(feats), torch.zeros(indices, dtype=torch.int64)
        )
    for name, buffer in queue.state_dict().items():
        assert torch.equal(before[name], buffer)


@pytest.mark.parametrize('method', ['push', 'nearest'])
@pytest.mark.parametrize('dtype', [torch.int32, torch.float32, torch.bool])
def test_bad_type_of_indices(method, dtype):
    queue = NearestNeighborQueue(3, 6)
    queue.push(*batch(0, 3))
    with pytest.raises(ValueError, match=f'type {dtype} for 4 features'):
        getattr(queue, method)(torch.rand(4, 6), torch.zeros(4, dtype=dtype))


@pytest.mark.parametrize('kwargs', [dict(length=0), dict(dim=0)])
def test_bad_settings(kwargs):
    ((name, value),) = kwargs.items()
    with pytest.raises(ValueError, match=rf'{name}={value}\b.*at least 1'):
        NearestNeighborQueue(**kwargs)
