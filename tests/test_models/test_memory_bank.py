"""The memory bank against a dictionary of NumPy rows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import run_on_two
from mmengine.model import BaseModel
from torch import nn

from mm_rotssl.models import MemoryBank


def features(seed, count=6, dim=8):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=1)


def reference(bank, indices, feats, momentum):
    """The last occurrence of an image counts, on its value before."""
    bank = bank.double().numpy().copy()
    old = bank.copy()
    for index, feat in zip(indices, feats.double().numpy(), strict=True):
        row = momentum * old[index] + (1 - momentum) * feat
        bank[index] = row / np.linalg.norm(row)
    return bank


def test_first_rows():
    bank = MemoryBank(feat_dim=128, length=4000)
    rows = bank.feature_bank
    bound = 1 / np.sqrt(128 / 3)
    assert rows.abs().max() <= bound
    assert rows.abs().max() > 0.999 * bound
    # length 1 on average, but not exactly
    assert rows.norm(dim=1).square().mean().item() == pytest.approx(
        1, rel=0.01
    )
    assert rows.norm(dim=1).std() > 0.02
    assert rows.mean().abs() < 1e-3


@pytest.mark.parametrize('momentum', [0.0, 0.5, 0.9])
def test_update(momentum):
    bank = MemoryBank(feat_dim=8, length=20, momentum=momentum)
    indices = [3, 7, 0, 19, 7, 3]  # repeated, as in a padded batch
    for seed in range(3):
        feats = features(seed)
        want = reference(bank.feature_bank, indices, feats, momentum)
        bank.update(torch.tensor(indices), feats)
        np.testing.assert_allclose(bank.feature_bank, want, atol=1e-6)
    seen = bank.feature_bank[[0, 3, 7, 19]]
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(4))


def test_momentum_is_on_the_old_value():
    bank = MemoryBank(feat_dim=2, length=2, momentum=0.9)
    bank.feature_bank.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    bank.update(torch.tensor([0]), torch.tensor([[0.0, 1.0]]))
    want = np.array([0.9, 0.1]) / np.sqrt(0.82)
    np.testing.assert_allclose(bank.feature_bank[0], want, rtol=1e-6)
    assert bank.feature_bank[1].tolist() == [1, 0]


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_half_precision(dtype):
    whole = MemoryBank(feat_dim=8, length=20)
    half = MemoryBank(feat_dim=8, length=20, dtype=dtype)
    half.feature_bank.copy_(whole.feature_bank)
    assert half.feature_bank.element_size() == 2
    indices = torch.arange(6)
    for seed in range(3):
        for bank in (whole, half):
            bank.update(indices, features(seed))
    assert half.feature_bank.dtype == getattr(torch, dtype)
    rows = half.rows(indices)
    assert rows.dtype == torch.float32
    tolerance = 2e-3 if dtype == 'float16' else 2e-2
    torch.testing.assert_close(
        rows, whole.rows(indices), atol=tolerance, rtol=0
    )


def test_rows_of_any_shape():
    bank = MemoryBank(feat_dim=8, length=20)
    indices = torch.tensor([[3, 1, 3], [0, 19, 5]])
    rows = bank.rows(indices)
    assert rows.shape == (2, 3, 8)
    assert torch.equal(rows[1, 1], bank.feature_bank[19])
    assert torch.equal(rows[0, 0], rows[0, 2])


# image 5 is in both processes and twice in the second: a padded last batch
SHARES = (
    [[0, 5, 2], [5, 9, 5]],
    [[1, 1, 1], [1, 1, 1]],
    [[8, 7, 6], [9, 0, 8]],
)


def update_on_rank(rank):
    bank = MemoryBank(feat_dim=8, length=10)
    generator = torch.Generator().manual_seed(4)
    first = torch.rand(10, 8, generator=generator)
    bank.feature_bank.copy_(first)
    for step, shares in enumerate(SHARES):
        feats = features(step).chunk(2)[rank]
        bank.update(torch.tensor(shares[rank]), feats)
    return bank.feature_bank


def test_two_processes_equal_one_bit_for_bit():
    one, other = run_on_two(update_on_rank)
    assert torch.equal(one, other)
    bank = MemoryBank(feat_dim=8, length=10)
    generator = torch.Generator().manual_seed(4)
    bank.feature_bank.copy_(torch.rand(10, 8, generator=generator))
    for step, shares in enumerate(SHARES):
        bank.update(torch.tensor(shares).flatten(), features(step))
    assert torch.equal(one, bank.feature_bank)


def first_rows_on_rank(rank):
    torch.manual_seed(rank)
    np.random.seed(rank)
    bank = MemoryBank(feat_dim=8)
    bank.bind_dataset([f'{i}.jpg' for i in range(30)])
    return bank.feature_bank


def test_two_processes_begin_with_the_same_rows():
    one, other = run_on_two(first_rows_on_rank)
    assert torch.equal(one, other)
    assert one.unique().numel() > 200


def test_rows_for_the_images():
    bank = MemoryBank(feat_dim=8)
    assert len(bank) == 0
    bank.bind_dataset(['a', 'b', 'c'])
    assert bank.feature_bank.shape == (3, 8)
    first = bank.fingerprint.clone()
    assert first > 0
    bank.bind_dataset(['a', 'c', 'b'])
    assert bank.fingerprint != first
    with pytest.raises(ValueError, match=r'length=4 rows.*3 different'):
        MemoryBank(length=4).bind_dataset(['a', 'b', 'c'])


class Model(BaseModel):
    def __init__(self, memory):
        super().__init__()
        self.head = nn.Module()
        self.head.memory = memory

    def forward(self, inputs):
        return inputs


def test_saved_and_loaded():
    bank = MemoryBank(feat_dim=8)
    bank.bind_dataset(['a', 'b', 'c'])
    bank.update(torch.tensor([1]), features(0, 1))
    state = Model(bank).state_dict()
    # one that knows no dataset takes on the rows of the file
    other = Model(MemoryBank(feat_dim=8))
    other.load_state_dict(state)
    assert torch.equal(other.head.memory.feature_bank, bank.feature_bank)
    assert other.head.memory.fingerprint == bank.fingerprint
    with pytest.raises(RuntimeError, match='size mismatch'):
        Model(MemoryBank(feat_dim=8, length=5)).load_state_dict(state)
    with pytest.raises(RuntimeError, match='size mismatch'):
        Model(MemoryBank(feat_dim=4)).load_state_dict(state)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(feat_dim=0),
        dict(length=1),
        dict(momentum=1.0),
        dict(momentum=-0.1),
        dict(dtype='float64'),
        dict(dtype='int8'),
    ],
)
def test_bad_settings(kwargs):
    (name,) = kwargs
    with pytest.raises(ValueError, match=f'{name}='):
        MemoryBank(**kwargs)
