import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from mm_rotssl.evaluation import (
    draw_labels,
    fine_tune,
    linear_probe,
    mean_and_std,
    plan_fine_tuning,
)

LABELS = torch.tensor([2, 0, 2, 5, 0, 5, 2, 0, 5, 5])


@pytest.mark.parametrize('shots', [1, 2, 3])
def test_draw_takes_different_images_of_every_class(shots):
    for seed in range(20):
        chosen = draw_labels(LABELS, shots, seed)
        assert chosen.dtype == torch.int64
        assert len(set(chosen.tolist())) == 3 * shots
        want = [label for label in (0, 2, 5) for _ in range(shots)]
        assert LABELS[chosen].tolist() == want


def test_draws_depend_on_the_seed_alone_and_reach_every_image():
    torch.manual_seed(1)
    np.random.seed(1)
    first = [draw_labels(LABELS, 1, (0, i)).tolist() for i in range(40)]
    torch.manual_seed(2)
    np.random.seed(2)
    again = [draw_labels(LABELS, 1, (0, i)).tolist() for i in range(40)]
    other = [draw_labels(LABELS, 1, (1, i)).tolist() for i in range(40)]
    assert first == again
    assert first != other
    assert {i for draw in first for i in draw} == set(range(len(LABELS)))


def test_larger_draw_holds_the_smaller():
    for seed in range(5):
        small = set(draw_labels(LABELS, 1, seed).tolist())
        assert small < set(draw_labels(LABELS, 3, seed).tolist())


def test_too_few_labels_names_class_and_count():
    with pytest.raises(ValueError, match='class 0 has only 3'):
        draw_labels(LABELS, 4, 0)
    with pytest.raises(ValueError, match='shots=0'):
        draw_labels(LABELS, 0, 0)


def test_linear_probe_is_logistic_regression_on_standardised_features():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 6))
    labels = np.arange(60) % 3 + 4
    # scales that differ by orders of magnitude, and a constant feature
    scale = np.array([1e-3, 1, 10, 1e3, 1, 0])
    feats = (means[labels - 4] + rng.normal(size=(60, 6))) * scale + 7
    queries = rng.normal(size=(200, 6)) * scale + 7

    mean, std = feats.mean(0), feats.std(0)
    std[std < 1e-9] = 1
    oracle = LogisticRegression(max_iter=1000).fit(
        (feats - mean) / std, labels
    )
    want = oracle.predict((queries - mean) / std)
    got = linear_probe(
        torch.from_numpy(feats),
        torch.from_numpy(labels),
        torch.from_numpy(queries),
    )
    assert got.tolist() == want.tolist()
    assert len(set(want)) == 3
    # where scaling is left out the answer is another one
    plain = LogisticRegression(max_iter=1000).fit(feats, labels)
    assert (plain.predict(queries) != want).any()


def test_mean_and_sample_deviation():
    values = [3.0, 4.0, 8.0]
    mean, spread = mean_and_std(values)
    assert mean == 5
    assert spread == pytest.approx(((4 + 1 + 9) / 2) ** 0.5)
    assert mean_and_std([4.0]) == (4.0, None)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def make_images(count=60):
    """Class = direction of the stripes, which no mean color tells."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    stripes = torch.ones(8, 8)
    stripes[::2] = -1
    images = torch.stack([stripes.T if y else stripes for y in labels])
    noise = torch.randn(count, 3, 8, 8, generator=generator)
    return images[:, None] + 0.3 * noise, labels


def tune(start, images, labels, seed=0):
    plan = plan_fine_tuning(len(images), seed)
    batches = ((images[batch], labels[batch]) for batch in plan)
    return fine_tune(start, batches, len(plan), 2, seed)


def test_fine_tuning_learns_and_leaves_the_network_alone():
    start = network()
    before = {k: v.clone() for k, v in start.state_dict().items()}
    images, labels = make_images()
    tuned = tune(start, images, labels)
    assert not tuned.training
    logits = tuned(images)
    assert logits.shape == (60, 2)
    assert (logits.argmax(1) == labels).float().mean() > 0.95
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name]), name
    # all of it was trained, not only the classifier
    assert not torch.equal(tuned[0][0].weight, start[0].weight)


def test_fine_tuning_depends_on_its_seed_alone():
    images, labels = make_images(20)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = tune(network(), images, labels, seed=1)(images)
    torch.manual_seed(6)
    again = tune(network(), images, labels, seed=1)(images)
    other = tune(network(), images, labels, seed=2)(images)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)

    # so does the classifier alone, before a step
    starts = [
        fine_tune(nn.Flatten(), [(images, labels)], 1, 2, seed)[1].weight
        for seed in (1, 2)
    ]
    assert not torch.allclose(*starts, atol=1e-3)

    torch.set_rng_state(state)
    tune(nn.Flatten(), images, labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_recipe_step_by_step():
    """The first two of four steps."""
    start = nn.Linear(3, 2, bias=False)
    images, labels = torch.randn(2, 5, 3), torch.randint(0, 2, (2, 5))
    batches = zip(images, labels, strict=True)
    weight = fine_tune(start, batches, 4, 2)[0].weight
    torch.manual_seed(0)
    classifier = nn.Linear(2, 2)
    params = [start.weight, *classifier.parameters()]
    momentum = [torch.zeros_like(p) for p in params]
    for step in range(2):
        logits = classifier(start(images[step]))
        loss = nn.functional.cross_entropy(logits, labels[step])
        rate = 0.05 * (1 + math.cos(math.pi * step / 4)) / 2
        with torch.no_grad():
            for p, m, g in zip(
                params,
                momentum,
                torch.autograd.grad(loss, params),
                strict=True,
            ):
                g = g + 5e-4 * p
                m.mul_(0.9).add_(g)
                p -= rate * (g + 0.9 * m)
    torch.testing.assert_close(weight, start.weight)


@pytest.mark.parametrize(
    ('count', 'sizes'), [(7, [7]), (100, [50, 50]), (101, [34, 34, 33])]
)
def test_every_image_once_an_epoch_in_equal_batches(count, sizes):
    plan = plan_fine_tuning(count, seed=3)
    assert [len(batch) for batch in plan] == 30 * sizes
    epochs = torch.cat(plan).view(30, count)
    for order in epochs:
        assert sorted(order.tolist()) == list(range(count))
    assert not torch.equal(epochs[0], epochs[1])
    other = torch.cat(plan_fine_tuning(count, seed=4)).view(30, count)
    assert not torch.equal(epochs, other)
