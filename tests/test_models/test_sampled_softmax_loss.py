"""The sampled softmax against loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from mm_rotssl.models import sampled_softmax_loss


def reference(positive, sampled, drawn, labels, num_classes):
    """The formula, term by term, with both gradients."""
    batch = len(labels)
    loss = 0.0
    grad_positive = np.zeros(batch)
    grad_sampled = np.zeros((batch, len(drawn)))
    for i, label in enumerate(labels):
        others = [j for j, c in enumerate(drawn) if c != label]
        terms = {
            j: (num_classes - 1) / len(others) * math.exp(sampled[i, j])
            for j in others
        }
        right = math.exp(positive[i])
        total = right + sum(terms.values())
        loss += (math.log(total) - positive[i]) / batch
        grad_positive[i] = (right / total - 1) / batch
        for j, term in terms.items():
            grad_sampled[i, j] = term / total / batch
    return loss, grad_positive, grad_sampled


def cross_entropy(scores, labels):
    """With all classes, and its gradient."""
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    rows = np.arange(len(labels))
    grad = p.copy()
    grad[rows, labels] -= 1
    return -np.log(p[rows, labels]).mean(), grad / len(labels)


def tensors(*arrays, dtype=torch.float32):
    return [torch.tensor(a, dtype=dtype).requires_grad_() for a in arrays]


@pytest.mark.parametrize(
    ('num_classes', 'drawn', 'labels'),
    [
        # no hit; one; several, of the same class and of others
        (12, [3, 8, 1], [0, 5, 11, 5]),
        (12, [3, 8, 1], [0, 8, 11, 5]),
        (12, [11, 8, 1, 0], [1, 11, 1, 5]),
        # one class, which no image has
        (12, [7], [1, 2, 3, 3]),
        (2, [1, 0], [0, 1, 1, 0]),
        (10**6, [999_999, 0, 31], [31, 0, 5, 999_999]),
    ],
)
def test_value_and_gradient(num_classes, drawn, labels):
    rng = np.random.RandomState(0)
    positive = 3 * rng.randn(len(labels))
    sampled = 3 * rng.randn(len(labels), len(drawn))
    inputs = tensors(positive, sampled)
    loss = sampled_softmax_loss(
        *inputs, torch.tensor(drawn), torch.tensor(labels), num_classes
    )
    assert loss.dtype == torch.float32
    want, *grads = reference(positive, sampled, drawn, labels, num_classes)
    assert loss.item() == pytest.approx(want, rel=1e-6)
    loss.backward()
    for tensor, grad in zip(inputs, grads, strict=True):
        np.testing.assert_allclose(tensor.grad, grad, atol=1e-7, rtol=2e-6)


def test_all_classes_make_the_cross_entropy():
    rng = np.random.RandomState(0)
    labels = [4, 0, 8, 4, 3]
    scores = 3 * rng.randn(5, 9)
    drawn = rng.permutation(9)
    (every,) = tensors(scores)
    loss = sampled_softmax_loss(
        every[range(5), labels],
        every[:, drawn],
        torch.tensor(drawn),
        torch.tensor(labels),
        9,
    )
    want, grad = cross_entropy(scores, labels)
    assert loss.item() == pytest.approx(want, rel=1e-6)
    loss.backward()
    np.testing.assert_allclose(every.grad, grad, atol=1e-6)


@pytest.mark.parametrize('value', [-1e4, 0.0, 1e4, math.inf, math.nan])
def test_a_hit_counts_once_whatever_its_score(value):
    # of 6 classes 4 are drawn: for label 2 three of them stand for five,
    # for label 1 four of them
    scores = np.array([[0.5, value, -1, 2], [0.5, 1, -1, 2]])
    inputs = tensors([1.5, 1.5], scores)
    loss = sampled_softmax_loss(
        *inputs, torch.tensor([0, 2, 5, 3]), torch.tensor([2, 1]), 6
    )
    three = math.exp(0.5) + math.exp(-1) + math.exp(2)
    totals = [
        math.exp(1.5) + 5 / 3 * three,
        math.exp(1.5) + 5 / 4 * (three + math.exp(1)),
    ]
    want = sum(math.log(total) - 1.5 for total in totals) / 2
    assert loss.item() == pytest.approx(want, rel=1e-6)
    loss.backward()
    grad = inputs[1].grad
    assert grad[0, 1] == 0
    assert grad[1, 1].item() == pytest.approx(
        5 / 4 * math.e / totals[1] / 2, rel=1e-5
    )


def losses_of_all_subsets(scores, label, size):
    """The loss with each set of drawn classes that there is."""
    count = len(scores)
    subsets = torch.tensor([*itertools.combinations(range(count), size)])
    return np.array(
        [
            sampled_softmax_loss(
                scores[label][None],
                scores[drawn][None],
                drawn,
                torch.tensor([label]),
                count,
            ).item()
            for drawn in subsets
        ]
    )


@pytest.mark.parametrize('label', [0, 3, 6])
def test_the_sum_is_right_on_average(label):
    scores = torch.tensor([1.0, -2.0, 0.5, 2.5, 0.0, 1.5, -1.0])
    whole = np.exp(scores.double().numpy())
    others = whole.sum() - whole[label]
    entropy = math.log(whole.sum() / whole[label])
    means = []
    for size in range(2, 8):
        losses = losses_of_all_subsets(scores, label, size)
        sums = (np.exp(losses) - 1) * whole[label]
        assert sums.mean() == pytest.approx(others, rel=1e-6), size
        means.append(losses.mean())
    # the loss is too low, by less the more are drawn
    gaps = entropy - np.array(means)
    assert (gaps[:-1] > 1e-3).all()
    assert (np.diff(gaps) < 0).all()
    assert gaps[-1] == pytest.approx(0, abs=1e-6)


def test_gradient_approaches_that_of_all_classes():
    """What reaches the features of an image, over many draws."""
    generator = torch.Generator().manual_seed(0)
    count, label = 256, torch.tensor([7])
    weight = torch.randn(count, 16, generator=generator)
    feature = 0.3 * torch.randn(16, generator=generator)
    scores = (weight @ feature).double().numpy()
    rows = weight.double().numpy()
    _, grad = cross_entropy(scores[None], [7])
    whole = grad[0] @ rows
    sizes = np.array([4, 16, 64, 128, 256])
    errors = []
    for size in sizes:
        found = []
        for _ in range(400):
            drawn = torch.randperm(count, generator=generator)[:size]
            x = feature.clone().requires_grad_()
            every = weight @ x
            sampled_softmax_loss(
                every[label], every[drawn][None], drawn, label, count
            ).backward()
            found.append(x.grad.double().numpy())
        error = np.square(np.array(found) - whole).sum(1).mean()
        errors.append(np.sqrt(error / np.square(whole).sum()))
    assert (np.diff(errors) < 0).all()
    assert errors[0] > 0.4
    assert errors[-1] < 1e-6

    # To first order a drawn class j adds (N - 1) p_j (w_j - mean) / D, and
    # the variance of a mean of D out of N - 1 is known.
    p = np.exp(scores) / np.exp(scores).sum()
    terms = np.delete((count - 1) * p[:, None] * (rows - p @ rows), 7, 0)
    variance = np.square(terms - terms.mean(0)).sum() / (count - 2)
    theory = np.sqrt(variance * (1 / sizes - 1 / count)) / np.linalg.norm(
        whole
    )
    np.testing.assert_allclose(errors[2:4], theory[2:4], rtol=0.1)


@pytest.mark.parametrize(
    'dtype', [torch.float16, torch.bfloat16, torch.float64]
)
@pytest.mark.parametrize('autocast', [False, True])
def test_other_precisions(dtype, autocast):
    rng = np.random.RandomState(0)
    drawn, labels = [3, 8, 1], [0, 8, 11, 5]
    inputs = tensors(3 * rng.randn(4), 3 * rng.randn(4, 3), dtype=dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        loss = sampled_softmax_loss(
            *inputs, torch.tensor(drawn), torch.tensor(labels), 10**5
        )
    assert loss.dtype == torch.float32
    arrays = [tensor.detach().double().numpy() for tensor in inputs]
    want, *grads = reference(*arrays, drawn, labels, 10**5)
    # only the scores were rounded, not what is made of them
    assert loss.item() == pytest.approx(want, rel=1e-6)
    loss.backward()
    for tensor, grad in zip(inputs, grads, strict=True):
        assert tensor.grad.dtype == dtype
        np.testing.assert_allclose(
            tensor.grad.double(), grad, rtol=8e-3, atol=1e-6
        )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_extreme_scores(dtype):
    # far beyond what exp can take; with three of four other classes
    inputs = tensors(
        [3e4, -3e4, 0, 0, 0],
        [
            [-3e4, -3e4, -3e4],
            [-3e4, 3e4, 0],
            [3e4, 3e4, -3e4],
            [-3e4, -3e4, -3e4],
            [0, 0, 0],
        ],
        dtype=dtype,
    )
    loss = sampled_softmax_loss(
        *inputs, torch.arange(3), torch.full((5,), 4), 5
    )
    top = inputs[0].detach()[0].item()
    want = 0, 2 * top + math.log(4 / 3), top + math.log(8 / 3), 0, math.log(5)
    assert loss.item() == pytest.approx(sum(want) / 5, rel=1e-6)
    loss.backward()
    np.testing.assert_allclose(
        5 * inputs[0].grad, [0, -1, -1, 0, -0.8], atol=1e-3
    )
    np.testing.assert_allclose(
        5 * inputs[1].grad,
        [
            [0, 0, 0],
            [0, 1, 0],
            [0.5, 0.5, 0],
            [0, 0, 0],
            [0.8 / 3, 0.8 / 3, 0.8 / 3],
        ],
        atol=1e-3,
    )


def test_nothing_to_compare_with():
    # the only class that there is; all that was drawn
    for num_classes in (1, 10):
        inputs = tensors([2.0, -3.0], [[1.0], [4.0]])
        loss = sampled_softmax_loss(
            *inputs, torch.tensor([0]), torch.tensor([0, 0]), num_classes
        )
        assert loss.item() == 0
        loss.backward()
        assert not inputs[0].grad.any()
        assert not inputs[1].grad.any()

    # an image for which it is so leaves the others alone
    inputs = tensors([2.0, -3.0], [[1.0], [4.0]])
    loss = sampled_softmax_loss(
        *inputs, torch.tensor([6]), torch.tensor([6, 5]), 10
    )
    total = math.exp(-3) + 9 * math.exp(4)
    assert loss.item() == pytest.approx((math.log(total) + 3) / 2, rel=1e-6)
    loss.backward()
    share = 9 * math.exp(4) / total / 2
    np.testing.assert_allclose(inputs[0].grad, [0, -share], rtol=1e-6)
    np.testing.assert_allclose(inputs[1].grad, [[0], [share]], rtol=1e-6)
