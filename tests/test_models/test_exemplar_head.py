"""The classifier over the seeds against loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from gloo import run_on_two
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from scipy.stats import chisquare

from mm_rotssl.engine import RowSGD
from mm_rotssl.models import ExemplarCNN, ExemplarHead


def reference(feat, weight, bias, labels, drawn=None):
    """Loss, and gradients of features, weight and bias; all by the formula.

    Without ``drawn`` the plain cross entropy.
    """
    count = len(weight)
    grads = [np.zeros_like(x) for x in (feat, weight, bias)]
    loss = 0.0
    for i, label in enumerate(labels):
        others = [
            c for c in (range(count) if drawn is None else drawn) if c != label
        ]
        factor = (count - 1) / max(len(others), 1)
        terms = {c: factor * math.exp(feat[i] @ weight[c] + bias[c]) for c in others}
        own = math.exp(feat[i] @ weight[label] + bias[label])
        total = own + sum(terms.values())
        loss -= math.log(own / total) / len(labels)
        for c, term in [*terms.items(), (label, own)]:
            slope = (term / total - (c == label)) / len(labels)
            grads[0][i] += slope * weight[c]
            grads[1][c] += slope * feat[i]
            grads[2][c] += slope
    return loss, *grads


def build(num_seeds=11, num_sampled=None, in_channels=5):
    torch.manual_seed(0)
    head = ExemplarHead(in_channels, num_seeds, num_sampled)
    # scores that differ from one another
    with torch.no_grad():
        head.fc.weight.normal_()
        head.fc.bias.normal_()
    return head


def arrays(*tensors):
    return [tensor.detach().double().numpy() for tensor in tensors]


def draw_again(head, seed):
    """What a loss with this random state draws."""
    torch.manual_seed(seed)
    drawn = head._draw(torch.device('cpu'))
    torch.manual_seed(seed)
    return drawn


def check(head, feat, labels, drawn=None):
    """Loss, gradients and accuracy against the reference."""
    head.zero_grad()
    feat = feat.clone().requires_grad_()
    out = head.loss((torch.zeros(1), feat), labels)
    inputs = arrays(feat, head.fc.weight, head.fc.bias)
    want, *grads = reference(*inputs, labels.tolist(), drawn)
    assert out['loss'].item() == pytest.approx(want, rel=1e-6)
    out['loss'].backward()
    for tensor, grad in zip(
        (feat, head.fc.weight, head.fc.bias), grads, strict=True
    ):
        found = tensor.grad
        assert found.is_sparse == (drawn is not None and tensor is not feat)
        found = found.to_dense() if found.is_sparse else found
        np.testing.assert_allclose(found, grad, atol=2e-6)
    scores = inputs[0] @ inputs[1].T + inputs[2]
    seen = range(head.num_seeds) if drawn is None else drawn
    hits = [
        all(row[label] > row[c] for c in seen if c != label)
        for row, label in zip(scores, labels.tolist(), strict=True)
    ]
    name = 'exemplar_accuracy' if drawn is None else 'sampled_accuracy'
    assert set(out) == {'loss', name}
    assert out[name].item() == pytest.approx(100 * np.mean(hits))


def test_all_classes():
    head = build()
    feat = torch.randn(6, 5)
    labels = torch.tensor([0, 3, 10, 3, 3, 7])
    check(head, feat, labels)
    # half of them right
    labels[::2] = head((feat,)).argmax(1)[::2]
    check(head, feat, labels)


@pytest.mark.parametrize(
    ('num_seeds', 'num_sampled'),
    # most of the classes; few; one; two classes
    [(11, 6), (40, 7), (40, 1), (2, 1)],
)
def test_some_classes(num_seeds, num_sampled):
    head = build(num_seeds, num_sampled)
    feat = torch.randn(6, 5)
    labels = torch.randint(num_seeds, (6,))
    labels[3] = labels[0]
    drawn = draw_again(head, 5)
    # one accidental hit
    labels[5] = drawn[0]
    check(head, feat, labels, drawn.tolist())
    for parameter in (head.fc.weight, head.fc.bias):
        grad = parameter.grad.coalesce()
        rows = {*drawn.tolist(), *labels.tolist()}
        assert grad.indices()[0].tolist() == sorted(rows)


def test_all_classes_drawn_equals_all_classes():
    whole, sampled = build(9), build(9, 9)
    feats = torch.randn(6, 5)
    labels = torch.tensor([0, 3, 8, 3, 3, 7])
    found = []
    for head in (whole, sampled):
        feat = feats.clone().requires_grad_()
        loss = head.loss((feat,), labels)['loss']
        loss.backward()
        grads = head.fc.weight.grad, head.fc.bias.grad
        found.append([loss, feat.grad, *(grad.to_dense() for grad in grads)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_gradients_of_two_losses_add_up():
    head = build(40, 7)
    batches = [(torch.randn(3, 5), torch.randint(40, (3,))) for _ in range(2)]
    want = np.zeros((40, 5))
    for seed, (feat, labels) in enumerate(batches):
        drawn = draw_again(head, seed).tolist()
        head.loss((feat,), labels)['loss'].backward()
        inputs = arrays(feat, head.fc.weight, head.fc.bias)
        want += reference(*inputs, labels.tolist(), drawn)[2]
    np.testing.assert_allclose(
        head.fc.weight.grad.to_dense(), want, atol=2e-6
    )


@pytest.mark.parametrize('num_sampled', [None, 6])
def test_autocast(num_sampled):
    head = build(11, num_sampled)
    feat, labels = torch.randn(64, 5), torch.randint(11, (64,))
    torch.manual_seed(1)
    want = head.loss((feat,), labels)['loss']
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = head.loss((feat,), labels)['loss']
    assert loss.dtype == torch.float32
    if num_sampled is None:
        # the product alone is of half precision
        logits = feat.bfloat16() @ head.fc.weight.bfloat16().T
        logits += head.fc.bias.bfloat16()
        entropy = torch.nn.functional.cross_entropy(logits.double(), labels)
        assert loss.item() == pytest.approx(entropy.item(), rel=2e-4)
        assert loss.item() == pytest.approx(want.item(), rel=1e-2)
        assert loss != want
    else:
        # nothing is
        assert torch.equal(loss, want)


@pytest.mark.parametrize('num_sampled', [None, 3])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_float32_inside(num_sampled, dtype):
    """A head and features of half precision; logits up to 60,000."""
    head = ExemplarHead(2, 4, num_sampled).to(dtype)
    with torch.no_grad():
        head.fc.weight.copy_(
            torch.tensor([[150.0, 150], [-150, -150], [1, 0], [0, 1]])
        )
        head.fc.bias.copy_(torch.tensor([0, 1, 2, 3]))
    feat = torch.full((3, 2), 200.0, dtype=dtype).requires_grad_()
    labels = torch.tensor([0, 1, 2])
    drawn = None
    if num_sampled:
        drawn = draw_again(head, 0).tolist()
    loss = head.loss((feat,), labels)['loss']
    assert loss.dtype == torch.float32
    logits = arrays(feat @ 0)


def subset_counts(num_seeds, num_sampled, draws):
    """How often each set of classes is drawn."""
    torch.manual_seed(0)
    head = ExemplarHead(1, num_seeds, num_sampled)
    sets = itertools.combinations(range(num_seeds), num_sampled)
    counts = dict.fromkeys(sets, 0)
    for _ in range(draws):
        drawn = head._draw(torch.device('cpu'))
        assert drawn.dtype == torch.int64
        # a KeyError if one is out of range or drawn twice
        counts[tuple(sorted(drawn.tolist()))] += 1
    return list(counts.values())
