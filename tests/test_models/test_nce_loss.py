"""Noise-contrastive estimation against loops in float64."""

import math

import numpy as np
import pytest
import torch
from gloo import run_on_two

from mm_rotssl.models import NCELoss, nce_loss


def reference(positive, negative, z, n):
    """The formula, term by term, with the official code's 1e-7."""
    batch, k = negative.shape
    c, eps = k / n, 1e-7
    total = 0.0
    for b in range(batch):
        p = math.exp(positive[b]) / z
        total -= math.log(p / (p + c + eps))
        for j in range(k):
            p = math.exp(negative[b, j]) / z
            total -= math.log(c / (p + c + eps))
    return total / batch


def scores(seed=0, batch=3, k=5):
    rng = np.random.RandomState(seed)
    return rng.randn(batch) * 4, rng.randn(batch, k) * 4


@pytest.mark.parametrize('n', [7, 1000, 10**7])
def test_value_and_gradient(n):
    positive, negative = scores()
    z = 2.2 * n
    inputs = [torch.tensor(x).requires_grad_() for x in (positive, negative)]
    loss = nce_loss(*inputs, math.log(z), n)
    assert loss.dtype == torch.float32
    want = reference(positive, negative, z, n)
    assert loss.item() == pytest.approx(want, rel=2e-6)
    loss.backward()
    for place, tensor in enumerate(inputs):
        flat = tensor.detach().numpy().reshape(-1)
        for i in range(flat.size):
            moved = []
            for step in (1e-5, -1e-5):
                both = [positive.copy(), negative.copy()]
                both[place].reshape(-1)[i] += step
                moved.append(reference(*both, z, n))
            want = (moved[0] - moved[1]) / 2e-5
            got = tensor.grad.reshape(-1)[i].item()
            assert got == pytest.approx(want, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(('k', 'chance'), [(4096, 9.318), (1024, 7.932)])
@pytest.mark.parametrize('n', [10**4, 10**6])
def test_value_at_chance(k, chance, n):
    # all images equally probable: P = 1 / n, whatever the scores are
    loss = nce_loss(
        torch.full((2,), 3.0), torch.full((2, k), 3.0), 3 + math.log(n), n
    )
    # each of the K terms gains 1e-7 / (K / n) by the official 1e-7
    assert loss.item() == pytest.approx(chance + 1e-7 * n, abs=1e-3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_extreme_scores(dtype):
    # exp(100) is beyond float32, exp(14) beyond float16
    for value in (100.0, 1 / 0.07, -100.0):
        positive = torch.tensor([value, -value], dtype=dtype).requires_grad_()
        negative = torch.tensor([[value], [0.0]], dtype=dtype).requires_grad_()
        module = NCELoss()
        loss = module(positive, negative, 1000)
        assert loss.isfinite()
        loss.backward()
        assert positive.grad.isfinite().all()
        assert negative.grad.isfinite().all()


def test_z_of_the_first_batch_is_kept():
    module = NCELoss()
    batches = [scores(seed) for seed in range(3)]
    n = 50
    first = np.concatenate([batches[0][0][:, None], batches[0][1]], 1)
    z = np.exp(first).mean() * n
    for positive, negative in batches:
        loss = module(torch.tensor(positive), torch.tensor(negative), n)
        want = reference(positive, negative, z, n)
        assert loss.item() == pytest.approx(want, rel=1e-5)
    assert module.log_z.exp().item() == pytest.approx(z, rel=1e-5)


def test_z_as_running_mean():
    module = NCELoss(z='running_mean', z_momentum=0.9)
    z = None
    for seed in range(4):
        positive, negative = scores(seed)
        batch = np.concatenate([positive[:, None], negative], 1)
        new = np.exp(batch).mean() * 50
        z = new if z is None else 0.9 * z + 0.1 * new
        loss = module(torch.tensor(positive), torch.tensor(negative), 50)
        want = reference(positive, negative, z, 50)
        assert loss.item() == pytest.approx(want, rel=1e-5)


def test_fixed_z():
    module = NCELoss(z=2.2)
    positive, negative = scores()
    for n in (50, 500):
        loss = module(torch.tensor(positive), torch.tensor(negative), n)
        want = reference(positive, negative, 2.2 * n, n)
        assert loss.item() == pytest.approx(want, rel=1e-6)


def test_z_is_saved():
    module = NCELoss()
    module(*map(torch.tensor, scores(0)), 50)
    other = NCELoss()
    other.load_state_dict(module.state_dict())
    args = (*map(torch.tensor, scores(1)), 50)
    assert torch.equal(other(*args), module(*args))
    assert not torch.equal(NCELoss()(*args), module(*args))


def test_z_is_no_path_of_the_gradient():
    positive, negative = (torch.tensor(x).requires_grad_() for x in scores())
    NCELoss()(positive, negative, 50).backward()
    batch = torch.cat([positive[:, None], negative], 1).detach()
    z = batch.exp().mean() * 50
    again = [x.detach().clone().requires_grad_() for x in (positive, negative)]
    nce_loss(*again, z.log(), 50).backward()
    torch.testing.assert_close(positive.grad, again[0].grad)
    torch.testing.assert_close(negative.grad, again[1].grad)


def estimate_on_rank(rank, z):
    module = NCELoss(z=z)
    for seed in (rank, rank + 2):
        module(*map(torch.tensor, scores(seed)), 50)
    return module.log_z


@pytest.mark.parametrize('z', ['first_batch', 'running_mean'])
def test_z_of_two_processes(z):
    one, other = run_on_two(estimate_on_rank, z)
    assert torch.equal(one, other)
    module = NCELoss(z=z)
    for seeds in ((0, 1), (2, 3)):
        parts = [scores(seed) for seed in seeds]
        positive, negative = (
            torch.tensor(np.concatenate(part))
            for part in zip(*parts, strict=True)
        )
        module(positive, negative, 50)
    torch.testing.assert_close(one, module.log_z)


@pytest.mark.parametrize('z', ['first', 0, -2.2])
def test_bad_z(z):
    with pytest.raises(ValueError, match=r'z=.*first_batch'):
        NCELoss(z=z)


@pytest.mark.parametrize('momentum', [0, 1, 1.5, -0.1])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match=r'z_momentum='):
        NCELoss(z_momentum=momentum)
