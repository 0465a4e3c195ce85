"""Nearest neighbors in the memory bank, against a loop over its rows."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Subset

from mm_rotssl.datasets import Digits, sample_names
from mm_rotssl.evaluation.features import Features
from mm_rotssl.evaluation.protocols import BankKNN
from mm_rotssl.models import NPID

IMAGES, QUERIES = 40, 50


def make_subject(dataset=None, bind=True, embedding=True):
    torch.manual_seed(0)
    model = NPID(
        backbone=dict(type='mm_rotssl.NIN', base_channels=6, num_stages=3),
        head=dict(in_channels=6, memory=dict(feat_dim=4)),
    )
    trained_on = Digits(pipeline=[], indices=IMAGES)
    if bind:
        model.head.memory.bind_dataset(sample_names(trained_on))
        model.head.memory.feature_bank.copy_(
            F.normalize(torch.randn(IMAGES, 4), dim=1)
        )
    queries = F.normalize(torch.randn(QUERIES, 4), dim=1)
    dataset = dataset or trained_on
    labels = torch.tensor(
        [dataset.get_data_info(i)['gt_label'] for i in range(IMAGES)]
        if dataset is trained_on
        else [0, 1]
    )
    names = ['3', 'embedding'] if embedding else ['3', '4']
    return SimpleNamespace(
        model=model,
        reference=SimpleNamespace(dataset=dataset),
        features=Features(
            names,
            [str(i) for i in range(10)],
            # those that were embedded anew are of no account
            [torch.zeros(len(labels), 4)] * 2,
            labels,
            [torch.zeros(QUERIES, 4), queries],
            torch.arange(QUERIES) % 10,
        ),
    )


@pytest.mark.parametrize(('k', 'temperature'), [(5, 0.5), (200, 0.07)])
def test_votes_of_the_rows(k, temperature):
    subject = make_subject()
    (found,) = BankKNN(k, temperature).run(subject)
    bank = subject.model.head.memory.feature_bank.double()
    labels = subject.features.reference_labels.tolist()
    right = []
    for query, row in enumerate(subject.features.test[1]):
        near = sorted(
            ((float(row.double() @ b), i) for i, b in enumerate(bank)),
            reverse=True,
        )
        votes = [0.0] * 10
        for similarity, i in near[:k]:
            votes[labels[i]] += math.exp(similarity / temperature)
        right.append(votes.index(max(votes)) == query % 10)
    assert 0 < sum(right) < QUERIES
    assert list(found.values) == [pytest.approx(100 * sum(right) / QUERIES)]
    assert found.correct.tolist() == right
    assert (found.stage, found.chance) == ('embedding', 10)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(bind=False), 'a trained NPID; this network has none'),
        (dict(embedding=False), 'a trained NPID'),
        (
            dict(dataset=Digits(pipeline=[], split='val', indices=IMAGES)),
            'knows 40, and there are 40, or others',
        ),
        (
            dict(dataset=Subset(Digits(pipeline=[], indices=IMAGES), [0, 1])),
            'knows 40, and there are 2, .* without --max-reference',
        ),
    ],
)
def test_where_no_rows_can_vote(changes, said):
    with pytest.raises(ValueError, match=said):
        list(BankKNN().run(make_subject(**changes)))
