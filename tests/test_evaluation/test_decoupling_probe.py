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
        center = rows.reshape(36, 5).mean(0)
        within = total = 0
        for image in rows:
            for copy in image:
                within += ((copy - image.mean(0)) ** 2).sum()
                total += ((copy - center) ** 2).sum()
        want = pytest.approx(100 * within / total)
        assert found[f'decoupling/{name}_variance'] == want
    assert found['decoupling/related_variance'] > 60
    assert found['decoupling/unrelated_variance'] < 20


def test_tested_on_other_images():
    """Random vectors can be learned by heart, but not foretold."""
    metric = DecouplingProbe()
    rows = []
    for i in range(40):
        feats = torch.randn(4, 200, generator=torch.Generator().manual_seed(i))
        rows.append(dict(related_feats=feats, unrelated_feats=feats))
    metric.process(None, rows)
    assert metric.evaluate(40)['decoupling/related'] < 45


def numbered(numbers):
    """Parts that tell which image they are of."""
    return [
        dict(
            related_feats=torch.full((2, 1), float(i)),
            unrelated_feats=torch.full((2, 1), float(i)),
        )
        for i in numbers
    ]


def test_drawn_from_the_whole_of_a_sorted_set():
    counts = torch.zeros(200)
    for trial in range(300):
        metric = DecouplingProbe(max_images=20)
        metric._random.seed(trial)
        for start in range(0, 200, 8):
            metric.process(None, numbered(range(start, start + 8)))
        assert len(metric.results) == 200
        kept = [i for i, row in enumerate(metric.results) if row is not None]
        assert len(kept) == 20
        for i in kept:
            assert metric.results[i][0][0, 0] == i
        counts[kept] += 1
    # 30 are expected of each, with a standard deviation of 5.2
    assert (counts - 30).abs().max() < 5 * 5.2
    for part in counts.split(50):
        assert part.mean().item() == pytest.approx(30, abs=3)


def test_the_same_images_each_time():
    metric = DecouplingProbe(max_images=8)
    kept = []
    for _ in range(2):
        metric.process(None, samples(40))
        kept.append([row is None for row in metric.results])
        metric.evaluate(40)
    assert kept[0] == kept[1]


def probe_on_rank(rank):
    metric = DecouplingProbe(max_images=30)
    # the sampler deals the images out in turn, and pads: 21 of them
    rows = samples(22)[rank::2]
    if rank == 1:
        # spoilt, if it counted
        rows[-1] = dict(
            related_feats=rows[0]['related_feats'].flip(0) * 100,
            unrelated_feats=rows[0]['unrelated_feats'] * 100,
        )
    metric.process(None, rows)
    found = metric.evaluate(21)
    # and with more than asked for
    metric = DecouplingProbe(max_images=6)
    metric.process(None, samples(20)[rank::2])
    return found, metric.evaluate(20)


def test_two_processes():
    metric = DecouplingProbe(max_images=30)
    metric.process(None, samples(21))
    want = metric.evaluate(21)
    for found, few in run_on_two(probe_on_rank):
        for name in want:
            # the order, so the halves, may be another one
            assert found[name] == pytest.approx(want[name], abs=3), name
        assert few['decoupling/related'] == 100


def test_other_algorithm_and_bad_number():
    with pytest.raises(KeyError, match='val_evaluator'):
        DecouplingProbe().process(None, [dict(rotation_scores=0)])
    with pytest.raises(ValueError, match='max_images=1 '):
        DecouplingProbe(max_images=1)
