"""The settings of Exemplar-CNN's SVM, and what it is trained on."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mm_rotssl.evaluation.protocols import (
    SVM_PROTOCOLS,
    exemplar_svm,
    svm_protocol,
)


def test_held_out_images_where_all_are_trained_on(monkeypatch):
    labels = torch.tensor([0, 1] * 10 + [2] * 5)
    feats = [torch.arange(25.0)[:, None]]
    seen = {}

    def spy(train, train_labels, held_out, held_out_labels, *settings):
        seen.update(train=train, held_out=held_out, settings=settings)
        assert len(train) == len(train_labels)
        assert sorted(held_out_labels.tolist()) == [0, 0, 1, 1, 2]
        return 0.5, 1.0

    monkeypatch.setattr(exemplar_svm, 'choose_c', spy)
    SVM_PROTOCOLS['all']._choose_c(feats, labels, torch.arange(25), 7)
    assert len(seen['train']) == 20
    # of one scale and no image on both sides
    both = torch.cat([seen['train'], seen['held_out']]).flatten()
    assert len(both.unique()) == 25
    assert seen['settings'] == ((1e-3, 1.0), 50, 1.0, 7)


def test_rest_of_the_training_set():
    labels = torch.tensor([0] * 8 + [1] * 3 + [2] * 5)
    chosen = torch.tensor([0, 1, 8, 9, 11, 12])
    drawn = exemplar_svm.draw_rest(chosen, labels, 2, seed=1)
    assert not set(drawn.tolist()) & set(chosen.tolist())
    assert labels[drawn].bincount().tolist() == [2, 1, 2]
    assert len(set(drawn.tolist())) == 5
    all_others = exemplar_svm.draw_rest(chosen, labels, None, seed=1)
    assert sorted([*all_others.tolist(), *chosen.tolist()]) == list(range(16))
    draws = {
        tuple(exemplar_svm.draw_rest(chosen, labels, 2, s).tolist())
        for s in (1, 2)
    }
    assert len(draws) == 2


def test_predefined_folds():
    protocol = SVM_PROTOCOLS['stl10']
    assert (protocol.bias, protocol.c_range) == (5, (2e-4, 2e-1))
    folds = [np.array([i, i + 10]) for i in range(10)]
    dataset = SimpleNamespace(folds=lambda: folds)
    splits = protocol.split(None, dataset, 0)
    assert [s.tolist() for s in splits] == [[i, i + 10] for i in range(10)]
    splits = svm_protocol('stl10', draws=3).split(None, dataset, 0)
    assert len(splits) == 3
    with pytest.raises(ValueError, match='Namespace has no predefined folds'):
        protocol.split(None, SimpleNamespace(), 0)


def test_only_what_is_given_replaces_the_published_settings():
    found = svm_protocol('cifar10-400', labels=None, draws=2, trials=None)
    assert (found.labels, found.draws, found.trials) == (400, 2, 50)
    assert found.input_size == 64
    assert SVM_PROTOCOLS['cifar10-400'].draws == 10
    assert SVM_PROTOCOLS['cifar10'].trials == 30
