import numpy as np
import pytest
import torch
from gloo import run_on_two

from mm_rotssl.evaluation import DecouplingProbe


def samples(count, start=0):
    """The first part knows the rotation, the second nothing."""
    found = []
    for i in range(start, start + count):
        generator = torch.Generator().manual_seed(i)
        noise = torch.randn(4, 6, generator=generator)
        found.append(
            dict(
                related_feats=torch.eye(4) + 0.1 * noise[:, :4],
                unrelated_feats=noise[:1].expand(4, 6),
            )
        )
    return found


def test_probes_of_both_parts():
    metric = DecouplingProbe()
    for start in (0, 30):
        metric.process(None, samples(30, start))
    found = metric.evaluate(60)
    assert found['decoupling/related'] == 100
    # all copies are alike: one rotation is guessed for all four
    assert found['decoupling/unrelated'] == 25


def test_variance_between_the_copies():
    rng = np.random.default_rng(0)
    parts = {
        name: rng.normal(size=(9, 4, 5)) + scale * rng.normal(size=(9, 1, 5))
        for name, scale in (('related', 0.3), ('unrelated', 3))
    }
    metric = DecouplingProbe()
    metric.process(
        None,
        [
            {
                f'{name}_feats': torch.tensor(rows[i])
                for name, rows in parts.items()
            }
            for i in range(9)
        ],
    )
    found = metric.evaluate(9)
    for name, rows in parts.items():
        centre = rows.reshape(36, 5).mean(0)
        within = total = 0
        for picture in rows:
            for copy in picture:
                within += ((copy - picture.mean(0)) ** 2).sum()
                total += ((copy - centre) ** 2).sum()
        want = pytest.approx(100 * within / total)
        assert found[f'decoupling/{name}_variance'] == want
    assert found['decoupling/related_variance'] > 60
    assert found['decoupling/unrelated_variance'] < 20


def test_tested_on_other_pictures():
    """Random vectors can be learnt by heart, but not foretold."""
    metric = DecouplingProbe()
    rows = []
    for i in range(40):
        feats = torch.randn(4, 200, generator=torch.Generator().manual_seed(i))
        rows.append(dict(related_feats=feats, unrelated_feats=feats))
    metric.process(None, rows)
    assert metric.evaluate(40)['decoupling/related'] < 45


def test_only_so_many_pictures_are_used():
    metric = DecouplingProbe(max_pictures=20)
    rows = samples(20)
    # would spoil both parts
    for row in samples(20, 20):
        row['related_feats'] = row['related_feats'].flip(0)
        rows.append(row)
    metric.process(None, rows)
    assert len([row for row in metric.results if row is not None]) == 20
    assert metric.evaluate(40)['decoupling/related'] == 100


def probe_on_rank(rank):
    metric = DecouplingProbe(max_pictures=10)
    # the sampler deals the pictures out in turn, and pads: 21 of them
    rows = samples(22)[rank::2]
    if rank == 1:
        rows[-1] = rows[0]
    metric.process(None, rows)
    return metric.evaluate(21)


def test_two_processes():
    metric = DecouplingProbe(max_pictures=10)
    metric.process(None, samples(21))
    want = metric.evaluate(21)
    assert run_on_two(probe_on_rank) == [want, want]


def test_other_algorithm_and_bad_number():
    with pytest.raises(KeyError, match='val_evaluator'):
        DecouplingProbe().process(None, [dict(rotation_scores=0)])
    with pytest.raises(ValueError, match='max_pictures=1 '):
        DecouplingProbe(max_pictures=1)
