"""Barlow Twins' head against its formula and the host's on one process.

On two: test_configs/test_two_processes.py.
"""

import copy

import numpy as np
import pytest
import torch
from mmpretrain.models.heads import LatentCrossCorrelationHead as HostHead

from mm_rotssl.models import LatentCrossCorrelationHead
from mm_rotssl.registry import MODELS

LAMBDA = 0.01
CHANNELS = 5


def build(kind=LatentCrossCorrelationHead, dtype=torch.float64):
    loss = dict(type='mmpretrain.CrossCorrelationLoss', lambd=LAMBDA)
    return kind(CHANNELS, loss).to(dtype)


def views(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shape = (7, CHANNELS)
    one = torch.randn(shape, generator=generator, dtype=dtype)
    other = one + torch.randn(shape, generator=generator, dtype=dtype)
    return one.requires_grad_(), other.requires_grad_()


def by_hand(one, other):
    one, other = (
        (view - view.mean(0)) / np.sqrt(view.var(0) + 1e-5)
        for view in (one.detach().numpy(), other.detach().numpy())
    )
    total = 0
    for i in range(CHANNELS):
        for j in range(CHANNELS):
            correlation = (one[:, i] * other[:, j]).mean()
            if i == j:
                total += (1 - correlation) ** 2
            else:
                total += LAMBDA * correlation**2
    return total


def test_formula():
    one, other = views()
    loss = build().loss(one, other)
    assert loss.item() == pytest.approx(by_hand(one, other), rel=1e-12)


def test_equals_the_host():
    ours, host = build(), build(HostHead)
    inputs = views()
    found, want = (head.loss(*inputs) for head in (ours, host))
    torch.testing.assert_close(found, want, rtol=1e-12, atol=0)
    for grad, value in zip(
        torch.autograd.grad(found, inputs),
        torch.autograd.grad(want, inputs),
        strict=True,
    ):
        torch.testing.assert_close(grad, value, rtol=1e-10, atol=1e-14)
    # the running statistics too
    state = ours.state_dict()
    for name, value in host.state_dict().items():
        torch.testing.assert_close(state.pop(name), value)
    assert not state
    ours.load_state_dict(copy.deepcopy(host.state_dict()))


def test_float32_under_autocast():
    inputs = views(torch.float32)
    want = build(dtype=torch.float32).loss(*inputs)
    with torch.autocast('cpu', torch.bfloat16):
        found = build(dtype=torch.float32).loss(*inputs)
    assert torch.equal(found, want)
    halves = [view.bfloat16() for view in inputs]
    assert build(dtype=torch.float32).loss(*halves).dtype == torch.float32


def test_built_by_name():
    head = MODELS.build(
        dict(
            type='mm_rotssl.LatentCrossCorrelationHead',
            in_channels=CHANNELS,
            loss=dict(type='mmpretrain.CrossCorrelationLoss'),
        )
    )
    assert type(head) is LatentCrossCorrelationHead
    assert isinstance(head, HostHead)
