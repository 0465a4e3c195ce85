"""Instance discrimination against the official computation, in float64."""

import math

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from mm_rotssl.models import InstanceDiscriminationHead

DIM, ROWS, BATCH = 8, 30, 5


def build(**kwargs):
    torch.manual_seed(0)
    # from which the rows of the bank are drawn
    np.random.seed(0)
    kwargs = dict(
        in_channels=6,
        memory=dict(feat_dim=DIM, length=ROWS),
        num_negatives=7,
        **kwargs,
    )
    return InstanceDiscriminationHead(**kwargs)


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(BATCH, 6, generator=generator)
    indices = torch.randperm(ROWS, generator=generator)[:BATCH]
    return feats.requires_grad_(), indices


def official(feats, weight, bias, bank, indices, negatives, temperature, z):
    """NCE as in lemniscate, float64: first column the positive."""
    projected = feats @ weight.T + bias
    v = projected / projected.pow(2).sum(1, keepdim=True).pow(0.5)
    idx = torch.cat([indices[:, None], negatives], 1)
    out = torch.exp(torch.einsum('bkd,bd->bk', bank[idx], v) / temperature)
    n, k = len(bank), negatives.shape[1]
    if z is None:
        z = out.mean().detach() * n
    out = out / z
    c, eps = k / n, 1e-7
    pos = (out[:, 0] / (out[:, 0] + c + eps)).log().sum()
    neg = (c / (out[:, 1:] + c + eps)).log().sum()
    return -(pos + neg) / len(indices), v, z


def drawn(monkeypatch):
    """Note what the head draws."""
    seen = []
    draw = torch.randint

    def note(*args, **kwargs):
        result = draw(*args, **kwargs)
        seen.append((args[0], result.clone()))
        return result

    monkeypatch.setattr(torch, 'randint', note)
    return seen


@pytest.mark.parametrize('temperature', [0.07, 0.5])
def test_loss_gradient_and_bank(temperature, monkeypatch):
    head = build(temperature=temperature)
    draws = drawn(monkeypatch)
    z = None
    for seed in range(3):
        feats, indices = inputs(seed)
        bank = head.memory.feature_bank.double()
        head.zero_grad()
        loss = head.loss(feats, indices)['loss']
        loss.backward()

        limit, negatives = draws.pop()
        assert limit == ROWS
        assert negatives.shape == (BATCH, 7)
        twins = [
            tensor.detach().double().requires_grad_()
            for tensor in (feats, head.fc.weight, head.fc.bias)
        ]
        want, v, z = official(*twins, bank, indices, negatives, temperature, z)
        want.backward()
        assert loss.item() == pytest.approx(want.item(), rel=1e-5)
        for got, twin in zip(
            (feats, head.fc.weight, head.fc.bias), twins, strict=True
        ):
            scale = twin.grad.abs().max().item()
            np.testing.assert_allclose(
                got.grad, twin.grad, atol=1e-5 * scale, rtol=1e-4
            )
        # updated after the loss, with the old rows
        for index, row in zip(indices.tolist(), v.detach(), strict=True):
            bank[index] = 0.5 * bank[index] + 0.5 * row
            bank[index] /= bank[index].norm()
        np.testing.assert_allclose(head.memory.feature_bank, bank, atol=1e-6)


def test_fresh_bank_has_the_known_normalizer():
    torch.manual_seed(0)
    head = InstanceDiscriminationHead(
        16, memory=dict(length=20_000), num_negatives=4096
    )
    head.loss(torch.randn(32, 16), torch.arange(32))
    ratio = head.loss_module.log_z.exp().item() / 20_000
    # exp(1 / (2 D T^2)), which is 2.219, less a little as rows are bounded
    assert 2.17 < ratio < 2.27


def test_shared_negatives(monkeypatch):
    head = build(shared_negatives=True)
    draws = drawn(monkeypatch)
    feats, indices = inputs()
    bank = head.memory.feature_bank.double()
    loss = head.loss(feats, indices)['loss']
    limit, negatives = draws.pop()
    assert limit == ROWS
    assert negatives.shape == (7,)
    twins = [
        tensor.detach().double()
        for tensor in (feats, head.fc.weight, head.fc.bias)
    ]
    want, *_ = official(
        *twins, bank, indices, negatives.expand(BATCH, 7), 0.07, None
    )
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)


def expected_gradient(z, num_negatives):
    """Gradient of the loss with respect to the features, averaged over all
    draws: every negative is any row with the same probability."""
    head = build()
    feats, indices = inputs()
    feats = feats.detach().double().requires_grad_()
    projected = feats @ head.fc.weight.double().T + head.fc.bias.double()
    v = projected / projected.norm(dim=1, keepdim=True)
    out = (v @ head.memory.feature_bank.double().T / 0.5).exp() / z
    c, eps = num_negatives / ROWS, 1e-7
    total = 0
    for b, index in enumerate(indices.tolist()):
        total = total - (out[b, index] / (out[b, index] + c + eps)).log()
        terms = [-(c / (out[b, j] + c + eps)).log() for j in range(ROWS)]
        total = total + num_negatives * sum(terms) / len(terms)
    loss = total / BATCH
    loss.backward()
    return loss.item(), feats.grad


DRAWS = 800


@pytest.mark.parametrize('shared', [False, True])
def test_expectation_of_the_gradient(shared):
    """Shared or not, the same; so many draws that their mean is known."""
    want, want_grad = expected_gradient(2.2 * ROWS, 7)
    head = build(
        shared_negatives=shared,
        temperature=0.5,
        loss=dict(z=2.2),
    )
    # a constant bank
    head.memory.update = lambda *_: None
    feats, indices = inputs()
    losses, grads = [], []
    for _ in range(DRAWS):
        feats.grad = None
        loss = head.loss(feats, indices)['loss']
        loss.backward()
        losses.append(loss.item())
        grads.append(feats.grad.double())
    grads = torch.stack(grads)
    for got, values in ((want, torch.tensor(losses)), (want_grad, grads)):
        error = values.std(0) / math.sqrt(len(values))
        # 5 standard errors; 31 numbers
        assert ((values.mean(0) - got).abs() < 5 * error).all()
    # what is compared is far larger than the errors
    assert want_grad.abs().max() > 12 * (grads.std(0) / DRAWS**0.5).max()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('shared', [False, True])
def test_autocast(dtype, shared):
    head = build(shared_negatives=shared, loss=dict(z=2.2))
    # parallel to the bank's rows: exp(1 / T) is beyond float16
    head.memory.feature_bank.copy_(
        torch.nn.functional.one_hot(torch.tensor(0), DIM).expand(ROWS, DIM)
    )
    head.fc.weight.data.zero_()
    head.fc.bias.data.copy_(100 * head.memory.feature_bank[0])
    feats, indices = inputs()
    plain = head.loss(feats, indices)['loss']
    with torch.autocast('cpu', dtype=dtype):
        loss = head.loss(feats, indices)['loss']
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-3)
    loss.backward()
    assert feats.grad.isfinite().all()
    assert head.memory.feature_bank.isfinite().all()


def test_half_precision_bank():
    head = build(loss=dict(z=2.2))
    half = build(loss=dict(z=2.2))
    half.memory.dtype = torch.float16
    half.memory.feature_bank = head.memory.feature_bank.half()
    feats, indices = inputs()
    losses = []
    for one in (head, half):
        torch.manual_seed(1)
        losses.append(one.loss(feats, indices)['loss'].item())
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    assert losses[0] != losses[1]


def cross_entropy(scores, targets):
    """Row by row, in float64."""
    total = 0
    for row, target in zip(scores, targets, strict=True):
        total = total + row.exp().sum().log() - row[target]
    return total / len(scores)


@pytest.mark.parametrize('number', [None, 7])
@pytest.mark.parametrize('shared', [False, True])
def test_cross_entropy(number, shared, monkeypatch):
    """With all rows, or with the image's own first and those that are drawn;
    loss, gradient, and the bank afterwards."""
    torch.manual_seed(0)
    head = InstanceDiscriminationHead(
        6,
        memory=dict(feat_dim=DIM, length=ROWS, momentum=0.8),
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
        num_negatives=number,
        shared_negatives=shared,
        temperature=0.1,
    )
    draws = drawn(monkeypatch)
    for seed in range(2):
        feats, indices = inputs(seed)
        bank = head.memory.feature_bank.double()
        head.zero_grad()
        found = head.loss(feats, indices)
        found['loss'].backward()
        twins = [
            tensor.detach().double().requires_grad_()
            for tensor in (feats, head.fc.weight, head.fc.bias)
        ]
        projected = twins[0] @ twins[1].T + twins[2]
        v = projected / projected.norm(dim=1, keepdim=True)
        if number is None:
            want = cross_entropy(v @ bank.T / 0.1, indices)
            chance = math.log(ROWS)
        else:
            _, negatives = draws.pop()
            negatives = negatives.expand(BATCH, number)
            places = torch.cat([indices[:, None], negatives], 1)
            scores = torch.einsum('bkd,bd->bk', bank[places], v) / 0.1
            want = cross_entropy(scores, [0] * BATCH)
            chance = math.log(8)
        assert not draws
        want.backward()
        assert found['loss'].item() == pytest.approx(want.item(), rel=1e-5)
        assert found['chance_ratio'].item() == pytest.approx(
            want.item() / chance, rel=1e-5
        )
        for got, twin in zip(
            (feats, head.fc.weight, head.fc.bias), twins, strict=True
        ):
            scale = twin.grad.abs().max().item()
            np.testing.assert_allclose(
                got.grad, twin.grad, atol=1e-5 * scale, rtol=1e-4
            )
        for index, row in zip(indices.tolist(), v.detach(), strict=True):
            bank[index] = 0.8 * bank[index] + 0.2 * row
            bank[index] /= bank[index].norm()
        np.testing.assert_allclose(head.memory.feature_bank, bank, atol=1e-6)


@pytest.mark.parametrize('number', [None, 4096])
@pytest.mark.parametrize('kind', ['mm_rotssl.NCELoss', 'CrossEntropyLoss'])
def test_chance(number, kind):
    """Scores that are all alike."""
    if number is None and 'NCE' in kind:
        pytest.skip('not allowed')
    init_default_scope('mmpretrain')
    loss = dict(type=kind, z=1.0) if 'NCE' in kind else dict(type=kind)
    head = InstanceDiscriminationHead(
        6, memory=dict(length=1000), num_negatives=number, loss=loss
    )
    head.memory.feature_bank.zero_()
    found = head.loss(torch.randn(BATCH, 6), torch.arange(BATCH))
    # NCE adds 1e-7 to its denominators
    assert found['chance_ratio'].item() == pytest.approx(1, rel=1e-4)


def test_nce_with_all_rows():
    with pytest.raises(ValueError, match=r'num_negatives=None.*set a number'):
        InstanceDiscriminationHead(6, num_negatives=None)


def test_no_rows_and_too_few():
    feats, indices = inputs()
    head = InstanceDiscriminationHead(6)
    with pytest.raises(RuntimeError, match='BindDatasetHook'):
        head.loss(feats, indices)
    head = build()
    with pytest.raises(IndexError, match=r'sample_idx=30.*30 rows'):
        head.loss(feats, indices.clamp(max=29) * 0 + ROWS)


@pytest.mark.parametrize('name', ['in_channels', 'num_negatives'])
def test_bad_numbers(name):
    kwargs = {'in_channels': 4, name: 0}
    with pytest.raises(ValueError, match=f'{name}=0'):
        InstanceDiscriminationHead(**kwargs)


def test_bad_temperature():
    with pytest.raises(ValueError, match=r'temperature=-1'):
        InstanceDiscriminationHead(4, temperature=-1)
