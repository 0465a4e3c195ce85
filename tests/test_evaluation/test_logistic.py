"""Logistic regression in chunks, and the choice of its penalty."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mm_rotssl.evaluation.functional import (
    choose_penalty,
    linear_probe,
    logistic,
)


def make(classes, size=90, channels=5, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=size)
    means = np.random.default_rng(9).normal(size=(classes, channels))
    # scales that differ, and a column that is constant
    scale = np.array([1, 10, 0.1, 1, 0])[:channels]
    feats = (means[labels] + noise * rng.normal(size=(size, channels))) * scale
    return torch.tensor(feats + 3), torch.tensor(labels)


@pytest.mark.parametrize('classes', [2, 4])
@pytest.mark.parametrize('c', [0.01, 1.0, 10.0])
def test_in_chunks_it_is_the_same_problem(monkeypatch, classes, c):
    """As scikit-learn's solution: its weights, of standardized columns."""
    monkeypatch.setattr(logistic, 'CHUNK_ROWS', 16)
    monkeypatch.setattr(logistic, 'TOLERANCE', 1e-9)
    feats, labels = make(classes)
    mean, std = logistic._mean_and_std(feats)
    x = feats.numpy()
    deviation = np.where(x.std(0) > 0, x.std(0), 1)
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(std, deviation, rtol=1e-6)
    scaled = (x - x.mean(0)) / deviation
    oracle = LogisticRegression(C=c, max_iter=10000, tol=1e-10)
    oracle.fit(scaled, labels.numpy())
    weight = logistic._fit_in_chunks(
        feats, labels, classes, c, mean, std, torch.device('cpu')
    )
    scores = scaled @ weight[:-1].numpy() + weight[-1].numpy()
    want = oracle.decision_function(scaled)
    if classes == 2:
        scores = scores[:, 1] - scores[:, 0]
    else:
        # a constant may be added to all classes
        scores -= scores.mean(1, keepdims=True)
        want = want - want.mean(1, keepdims=True)
    np.testing.assert_allclose(scores, want, atol=1e-4)


@pytest.mark.parametrize('classes', [2, 3])
def test_both_ways_predict_alike(monkeypatch, classes):
    monkeypatch.setattr(logistic, 'CHUNK_ROWS', 32)
    feats, labels = make(classes)
    # numbers of classes need not be in a row
    labels = labels * 3 + 1
    queries, _ = make(classes, 300, seed=1)
    inside = linear_probe(feats, labels, queries)
    outside = linear_probe(feats, labels, queries, most_bytes=0)
    assert set(inside.tolist()) == set(labels.tolist())
    assert (inside == outside).float().mean() > 0.99


def test_the_choice_where_labels_are_few_or_many(monkeypatch):
    fits = []

    def probe(feats, _, queries, c, *__):
        fits.append((len(feats), len(queries), c))
        return torch.zeros(len(queries), dtype=torch.int64)

    monkeypatch.setattr(logistic, 'linear_probe', probe)
    feats, labels = torch.rand(12, 2), torch.arange(12) % 4
    # one label of each class: nothing can be held out
    assert choose_penalty(feats[:4], labels[:4], (0.1, 1, 10)) == 1.0
    assert not fits
    # what is alone in its class is learned from in each part
    alone = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    choose_penalty(feats[:7], alone, (0.1, 10))
    assert fits == 3 * [(5, 2, 0.1), (5, 2, 10)]
    fits.clear()
    # in the one part of many, too
    many = (torch.arange(1011) % 2).index_fill(0, torch.tensor(5), 2)
    choose_penalty(torch.rand(1011, 2), many, (0.1, 10))
    assert fits == [(809, 202, 0.1), (809, 202, 10)]
    fits.clear()
    # three of each: as many parts; equal Cs, the smallest
    assert choose_penalty(feats, labels, (0.1, 10)) == 0.1
    assert fits == 3 * [(8, 4, 0.1), (8, 4, 10)]
    fits.clear()
    many = torch.arange(1010) % 2
    choose_penalty(torch.rand(1010, 2), many, (0.1, 10))
    assert fits == [(808, 202, 0.1), (808, 202, 10)]
    fits.clear()
    assert choose_penalty(feats, labels, (7.0,)) == 7.0
    assert not fits
    # of 1,010 rows of 2 numbers 100 fit into the memory, or one a class
    choose_penalty(torch.rand(1010, 2), many, (0.1, 10), most_bytes=1600)
    assert fits == [(80, 20, 0.1), (80, 20, 10)]
    fits.clear()
    choose_penalty(torch.rand(1010, 2), many, (0.1, 10), most_bytes=0)
    assert fits == [(8, 2, 0.1), (8, 2, 10)]


def test_the_part_that_is_looked_at_is_no_beginning(monkeypatch):
    seen = []

    def probe(_, labels, queries, *__):
        seen.append((labels.bincount().tolist(), len(queries)))
        return torch.zeros(len(queries), dtype=torch.int64)

    monkeypatch.setattr(logistic, 'linear_probe', probe)
    # sorted by class
    labels = torch.tensor([0] * 900 + [1] * 600)
    choose_penalty(torch.rand(1500, 2), labels, (1, 2), most_bytes=1600)
    assert seen == 2 * [([48, 32], 20)]


def test_a_label_a_class_is_no_cause_for_a_warning(recwarn):
    feats, labels = torch.eye(30), torch.arange(30)
    assert torch.equal(linear_probe(feats, labels, feats), labels)
    assert not list(recwarn)


def test_queries_in_chunks(monkeypatch):
    feats, labels = make(3)
    queries, _ = make(3, 70, seed=1)
    whole = [linear_probe(feats, labels, queries, 1.0, m) for m in (0, 2**20)]
    monkeypatch.setattr(logistic, 'CHUNK_ROWS', 16)
    parts = [linear_probe(feats, labels, queries, 1.0, m) for m in (0, 2**20)]
    for found, want in zip(parts, whole, strict=True):
        assert torch.equal(found, want)
