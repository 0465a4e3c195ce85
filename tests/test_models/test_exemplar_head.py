"""The classifier over the seed patches against loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
        terms = {
            c: factor * math.exp(feat[i] @ weight[c] + bias[c]) for c in others
        }
        own = math.exp(feat[i] @ weight[label] + bias[label])
        total = own + sum(terms.values())
        loss -= math.log(own / total) / len(labels)
        for c, term in [*terms.items(), (label, own)]:
            slope = (term / total - (c == label)) / len(labels)
            grads[0][i] += slope * weight[c]
            grads[1][c] += slope * feat[i]
            grads[2][c] += slope
    return loss, *grads


def build(num_exemplars=11, num_sampled=None, in_channels=5):
    torch.manual_seed(0)
    head = ExemplarHead(in_channels, num_exemplars, num_sampled)
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
    seen = range(head.num_exemplars) if drawn is None else drawn
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
    ('num_exemplars', 'num_sampled'),
    # most of the classes; few; one; two classes
    [(11, 6), (40, 7), (40, 1), (2, 1)],
)
def test_some_classes(num_exemplars, num_sampled):
    head = build(num_exemplars, num_sampled)
    feat = torch.randn(6, 5)
    labels = torch.randint(num_exemplars, (6,))
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
    np.testing.assert_allclose(head.fc.weight.grad.to_dense(), want, atol=2e-6)


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
        with torch.autocast('cpu', dtype=torch.bfloat16):
            logits = head((feat,))
        assert logits.dtype == torch.bfloat16
        entropy = F.cross_entropy(logits.double(), labels)
        assert loss.item() == pytest.approx(entropy.item(), rel=1e-6)
        assert loss.item() == pytest.approx(want.item(), rel=1e-2)
        assert loss != want
    else:
        # nothing is
        assert torch.equal(loss, want)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_float32_inside(dtype):
    """Head and features of half precision; scores beyond float32's exp."""
    whole, sampled = build(11).to(dtype), build(11, 6).to(dtype)
    feat, labels = 60 * torch.randn(6, 5).to(dtype), torch.arange(6)
    loss = whole.loss((feat,), labels)['loss']
    want = F.cross_entropy(whole((feat,)).double(), labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    assert whole((feat,)).max() > 88

    drawn = draw_again(sampled, 0).tolist()
    feat.requires_grad_()
    loss = sampled.loss((feat,), labels)['loss']
    inputs = arrays(feat, sampled.fc.weight, sampled.fc.bias)
    want, *grads = reference(*inputs, labels.tolist(), drawn)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want, rel=1e-6)
    loss.backward()
    parameters = sampled.fc.weight, sampled.fc.bias
    found = feat.grad, *(p.grad.to_dense() for p in parameters)
    for tensor, grad in zip(found, grads, strict=True):
        assert tensor.dtype == dtype
        np.testing.assert_allclose(tensor.double(), grad, rtol=1e-2, atol=1e-2)


def subset_counts(num_exemplars, num_sampled, draws):
    """How often each set of classes is drawn."""
    torch.manual_seed(0)
    head = ExemplarHead(1, num_exemplars, num_sampled)
    sets = itertools.combinations(range(num_exemplars), num_sampled)
    counts = dict.fromkeys(sets, 0)
    for _ in range(draws):
        drawn = head._draw(torch.device('cpu'))
        assert drawn.dtype == torch.int64
        # a KeyError if one is out of range or drawn twice
        counts[tuple(sorted(drawn.tolist()))] += 1
    return list(counts.values())


# as a permutation, of which more than a quarter is used; and drawn again
# where one comes twice
@pytest.mark.parametrize(
    ('num_exemplars', 'num_sampled'), [(7, 3), (6, 5), (3, 1), (8, 2), (9, 1)]
)
def test_draws_are_uniform_without_replacement(num_exemplars, num_sampled):
    counts = subset_counts(num_exemplars, num_sampled, 4000)
    assert chisquare(counts).pvalue > 1e-3


def test_everything_may_be_drawn():
    assert subset_counts(5, 5, 3) == [3]
    assert subset_counts(1, 1, 3) == [3]


@pytest.mark.parametrize(
    ('num_exemplars', 'num_sampled'), [(30, 20), (1000, 20)]
)
def test_draws_come_from_the_generator(num_exemplars, num_sampled):
    head = ExemplarHead(1, num_exemplars, num_sampled)
    one, again = draw_again(head, 3), draw_again(head, 3)
    assert torch.equal(one, again)
    # and go on from there
    assert torch.equal(head._draw(torch.device('cpu')), one)
    assert not torch.equal(head._draw(torch.device('cpu')), one)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(in_channels=0), 'in_channels=0 and num_exemplars=7 of Exem'),
        (dict(num_exemplars=0), 'in_channels=3 and num_exemplars=0 of Exem'),
        (dict(num_sampled=0), r'num_sampled=0 of Exem.*in 1\.\.7'),
        (dict(num_sampled=8), r'num_sampled=8 of Exem.*in 1\.\.7'),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ExemplarHead(**{'in_channels': 3, 'num_exemplars': 7, **kwargs})


@pytest.mark.parametrize('num_sampled', [None, 2])
@pytest.mark.parametrize('shape', [(2, 6), (2, 5, 3, 3), (5,)])
def test_shape_error_names_the_key(num_sampled, shape):
    head = ExemplarHead(5, 7, num_sampled)
    with pytest.raises(
        ValueError, match=r'model\.head\.in_channels.*GlobalAveragePooling'
    ):
        head.loss((torch.zeros(shape),), torch.zeros(2, dtype=torch.int64))


# Two processes.

NUM_SEEDS = 9
# a seed is drawn with these, and the labels come twice and in both parts
LABELS = ((0, 8, 4, 0), (3, 3, 3, 3), (7, 1, 1, 2))


def train(num_sampled, rank=None):
    """Some steps of a network, on all images or the half of a process."""
    init_default_scope('mmpretrain')
    # the second process starts from other weights
    torch.manual_seed(rank or 0)
    model = ExemplarCNN(
        backbone=dict(
            type='mm_rotssl.ExemplarNet',
            arch='4c3-6f',
            input_size=6,
            dropout=0.0,
        ),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mm_rotssl.ExemplarHead',
            in_channels=6,
            num_exemplars=NUM_SEEDS,
            num_sampled=num_sampled,
        ),
    )
    model.init_weights()
    first = model.head.fc.weight.detach().clone()
    wrapped, part = model, slice(None)
    if rank is not None:
        wrapped = MMDistributedDataParallel(model)
        part = slice(2 * rank, 2 * rank + 2)
    optimizer = RowSGD(
        model.parameters(), 0.5, momentum=0.9, weight_decay=0.01
    )
    generator = torch.Generator().manual_seed(1)
    steps = []
    for number, labels in enumerate(LABELS):
        images = torch.randn(4, 3, 6, 6, generator=generator)
        samples = [DataSample() for _ in labels]
        for sample, label in zip(samples, labels, strict=True):
            sample.set_field(label, 'exemplar_label')
        # and has drawn other numbers
        torch.manual_seed(100 * (rank or 0) + number)
        losses = wrapped(images[part], samples[part], mode='loss')
        optimizer.zero_grad()
        losses['loss'].backward()
        grads = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
        }
        sparse = {name for name, grad in grads.items() if grad.is_sparse}
        rows = [grads[name].coalesce().indices()[0] for name in sorted(sparse)]
        grads = {
            name: grad.to_dense() if grad.is_sparse else grad.clone()
            for name, grad in grads.items()
        }
        optimizer.step()
        steps.append(
            dict(
                loss=losses['loss'].detach(),
                grads=grads,
                rows=rows,
                weights={k: v.clone() for k, v in model.state_dict().items()},
            )
        )
    return dict(first=first, steps=steps)


# all classes; drawn, but all; some, so that it matters which; few of many
MODES = (None, NUM_SEEDS, 3, 2)


def train_on_rank(rank):
    return [train(mode, rank) for mode in MODES]


@pytest.fixture(scope='module')
def runs():
    """Of both processes, by mode."""
    one, other = run_on_two(train_on_rank)
    return {mode: pair for mode, *pair in zip(MODES, one, other, strict=True)}


@pytest.mark.parametrize('mode', MODES)
def test_two_processes_equal_one(runs, mode):
    one, other = runs[mode]
    assert not torch.equal(one['first'], other['first'])
    whole = train(mode)
    assert torch.equal(one['first'], whole['first'])
    assert len(whole['steps']) == len(LABELS)
    for want, *parts in zip(
        whole['steps'], one['steps'], other['steps'], strict=True
    ):
        losses = torch.stack([part['loss'] for part in parts])
        assert losses[0] != losses[1]
        torch.testing.assert_close(losses.mean(), want['loss'])
        for part in parts:
            for key in ('grads', 'weights'):
                assert part[key].keys() == want[key].keys()
                for name, value in want[key].items():
                    torch.testing.assert_close(
                        part[key][name],
                        value,
                        rtol=1e-5,
                        atol=1e-6,
                        msg=lambda text, key=key, name=name: (
                            f'{key} {name}: {text}'
                        ),
                    )
            # the same rows of weight and bias, or none sparse
            assert len(part['rows']) == len(want['rows']) == (2 if mode else 0)
            for found, rows in zip(part['rows'], want['rows'], strict=True):
                assert torch.equal(found, rows)
        # and nothing has come apart
        for name, value in parts[0]['weights'].items():
            assert torch.equal(value, parts[1]['weights'][name]), name
