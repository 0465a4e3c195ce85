"""Equal shares to a tolerance, as for labels of equally large classes.

How SwAV uses it, with three iterations, is tested with its loss.
"""

from importlib import import_module

import numpy as np
import pytest
import torch
from gloo import run_on_two

from mm_rotssl.ops import sinkhorn

ROWS, CLASSES = 150, 6


def predictions(seed=0, rows=ROWS, sharpness=4.0):
    """Log-probabilities, most of them of the first classes."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(rows, CLASSES))
    logits += np.linspace(3, 0, CLASSES)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def by_powers(log_p, power, tolerance, most=100_000):
    """SeLa's way: scale rows and columns of the powers of probabilities."""
    n, k = log_p.shape
    shares = np.exp(log_p) ** power
    c = np.full(n, 1 / n)
    for number in range(1, most + 1):
        r = (1 / k) / (shares.T @ c)
        new = (1 / n) / (shares @ r)
        error = np.abs(c / new - 1).sum()
        c = new
        if number % 10 == 0 and error <= tolerance:
            break
    return n * c[:, None] * shares * r, number


@pytest.mark.parametrize('power', [5, 25])
@pytest.mark.parametrize('tolerance', [0.1, 1e-4])
def test_ends_where_the_official_code_does(power, tolerance):
    log_p = predictions()
    want, number = by_powers(log_p, power, tolerance)
    assert number < 100_000
    found = sinkhorn(
        torch.from_numpy(log_p), 1 / power, 100_000, tolerance
    ).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-12)
    # not one iteration more or fewer: ten are a visible difference
    if tolerance == 0.1:
        ten_more = sinkhorn(torch.from_numpy(log_p), 1 / power, number + 10)
        assert np.abs(ten_more.numpy() - want).max() > 1e-5
    sizes = np.bincount(found.argmax(1), minlength=CLASSES)
    assert sizes.sum() == ROWS
    assert sizes.min() > 0.8 * ROWS / CLASSES
    # as they are before, they are far from equal
    assert np.bincount(log_p.argmax(1)).max() > 1.5 * ROWS / CLASSES


def test_in_float32_as_in_float64():
    """Where powers of probabilities are 0 in float32."""
    log_p = torch.from_numpy(predictions(sharpness=15.0))
    assert (log_p.float().exp() ** 25 == 0).double().mean() > 0.5
    found = [
        sinkhorn(scores, 1 / 25, 2000, 0.01).argmax(1)
        for scores in (log_p, log_p.float())
    ]
    assert torch.equal(*found)


def test_no_more_iterations_than_allowed():
    log_p = torch.from_numpy(predictions())
    assert torch.equal(
        sinkhorn(log_p, 0.04, 20, 1e-12), sinkhorn(log_p, 0.04, 20)
    )


def test_rows_are_worked_on_in_parts(monkeypatch):
    log_p = torch.from_numpy(predictions())
    want = sinkhorn(log_p, 0.2, 50)
    # the package has a function of this name
    module = import_module('mm_rotssl.ops.sinkhorn')
    monkeypatch.setattr(module, 'CHUNK_ROWS', 40)
    torch.testing.assert_close(sinkhorn(log_p, 0.2, 50), want)


def of_its_rows(rank):
    log_p = torch.from_numpy(predictions())
    # not as many on either
    own = log_p[: ROWS // 3] if rank == 0 else log_p[ROWS // 3 :]
    return sinkhorn(own, 0.04, 5000, 0.1)


def test_two_processes():
    whole = sinkhorn(torch.from_numpy(predictions()), 0.04, 5000, 0.1)
    torch.testing.assert_close(torch.cat(run_on_two(of_its_rows)), whole)


def test_bad_tolerance():
    with pytest.raises(ValueError, match='tolerance=-1 must be positive'):
        sinkhorn(torch.zeros(2, 2), tolerance=-1)
