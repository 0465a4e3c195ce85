"""The protocols that need no labels."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mm_rotssl.evaluation import (
    alignment,
    hubness,
    lidar,
    linear_probe,
    mst_dimension,
    rankme,
    uniformity,
)
from mm_rotssl.evaluation.feature_store import FeatureStore, choose_images
from mm_rotssl.evaluation.protocols import (
    Geometry,
    Invariance,
    RotationProbe,
    Views,
    rotation_probe,
)
from mm_rotssl.evaluation.protocols.base import Protocol
from mm_rotssl.evaluation.subject import Subject
from mm_rotssl.evaluation.variants import RandomViews, Rotations
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import InputError

DIGITS = (
    Path(__file__).resolve().parents[2] / 'configs/_base_/datasets/digits.py'
)
ALL = [Geometry, Views, RotationProbe, Invariance]


class StandIn:
    """Features, whatever the images; remembers what was asked for."""

    def __init__(self, seed=0, **stages):
        self.seed = seed
        self.stages = stages
        self.asked = None

    def image_features(self, variant=None, max_images=None):
        self.asked = variant, max_images
        return self.stages


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def measure(protocol, subject):
    """Metric and stage -> what was measured."""
    found = {}
    for measurement in protocol.run(subject):
        key = measurement.metric, measurement.stage
        assert measurement.metric in protocol.metrics
        assert key not in found
        assert all(math.isfinite(value) for value in measurement.values)
        found[key] = measurement
    return found


@pytest.fixture(scope='module')
def subject():
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(DIGITS)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mm_rotssl.RotNet',
            backbone=dict(
                type='mm_rotssl.NIN',
                base_channels=24,
                num_stages=3,
                out_indices=(0, 2),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=24),
            data_preprocessor=cfg.data_preprocessor,
        )
    ).eval()
    dataset = dict(size=16, indices=60, serialize_data=False)
    cfg.merge_from_dict(
        dict(val_dataloader=dict(batch_size=25, dataset=dataset))
    )
    images = Runner.build_dataloader(cfg.val_dataloader)
    return Subject(model, FeatureStore(), images, seed=3)


@pytest.mark.parametrize('protocol', ALL)
def test_every_metric_of_a_network(protocol, subject):
    found = measure(protocol(), subject)
    stages = set(subject.image_features())
    missing = {
        (metric, stage)
        for metric in protocol.metrics
        for stage in stages
        if (metric, stage) not in found
    }
    # 12 channels are too few for an exponent
    expected = {('alpha_req', '1')} if protocol is Geometry else set()
    assert missing == expected
    again = measure(protocol(), subject)
    assert {key: list(one.values) for key, one in found.items()} == {
        key: list(one.values) for key, one in again.items()
    }


@pytest.mark.parametrize('protocol', ALL)
def test_what_reports_show(protocol):
    assert issubclass(protocol, Protocol)
    assert not protocol.labeled
    for text in (protocol.name, protocol.title, protocol.about):
        assert text.strip() == text
        assert text
    for metric in protocol().metrics.values():
        assert len(metric.about) > 40
        assert metric.about.endswith('.')
    assert all(value > 0 for value in asdict(protocol()).values())


def test_some_images_are_the_same_for_every_network(subject):
    some = subject.image_features(max_images=20)
    every = subject.image_features()
    order = np.random.default_rng(3).permutation(60)[:20]
    for stage, feats in some.items():
        torch.testing.assert_close(feats, every[stage][np.sort(order)])
    # of all there is no second copy
    assert choose_images(subject.images, 60, 3) is subject.images
    rotated = subject.image_features(Rotations(), 20)
    torch.testing.assert_close(rotated['1'][::4], some['1'])
    views = subject.image_features(RandomViews(3, 5), 20)['1']
    every = subject.image_features(RandomViews(3, 5))['1']
    drawn = every.unflatten(0, (60, 3))[np.sort(order)]
    torch.testing.assert_close(views, drawn.flatten(0, 1))


def test_geometry_measures_the_stages():
    feats = draw(90, 3) @ draw(3, 30) + 0.05 * draw(90, 30, seed=1)
    found = measure(
        Geometry(max_images=70, tree_images=40, neighbors=4, draws=2),
        subject := StandIn(seed=5, **{'1': feats, 'embedding': feats + 9}),
    )
    assert subject.asked == (None, 70)
    assert len(found) == 16
    assert found['rankme', '1'].values == [rankme(feats)]
    assert found['rankme', 'embedding'].values == [rankme(feats + 9)]
    assert found['hubness', '1'].values == [hubness(feats, 4)]
    drawn = np.random.default_rng(5).permutation(90)[:40]
    want = mst_dimension(feats[drawn], 5)
    assert found['mst', '1'].values == [want]
    stability = found['cluster_stability', '1']
    assert len(stability.values) == len(set(stability.values)) == 2
    assert stability.chance == 0


def test_collapsed_features_give_what_is_defined():
    collapsed = torch.ones(40, 6)
    found = measure(Geometry(), StandIn(a=collapsed))
    assert {metric: one.values[0] for (metric, _), one in found.items()} == {
        'rankme': pytest.approx(1, abs=1e-4),
        'two_nn': 0,
        'mst': 0,
        'spread': pytest.approx(0, abs=1e-9),
        'dead': 100,
    }
    found = measure(Views(views=2), StandIn(a=collapsed))
    assert {metric: one.values[0] for (metric, _), one in found.items()} == {
        'lidar': 0,
        'alignment': pytest.approx(0, abs=1e-9),
        'uniformity': pytest.approx(0, abs=1e-9),
    }
    collapsed = torch.ones(60, 6)
    found = measure(Invariance(), StandIn(a=collapsed))
    assert {metric for metric, _ in found} == {
        f'cosine_{angle}' for angle in (90, 180, 270)
    }
    found = measure(RotationProbe(), StandIn(a=collapsed))
    assert found['accuracy', 'a'].values == [25]


def test_views_belong_to_images():
    images = torch.arange(30).repeat_interleave(3)
    feats = draw(30, 5)[images] + 0.1 * draw(90, 5, seed=1)
    protocol = Views(max_images=30, views=3, neighbors=4)
    found = measure(protocol, subject := StandIn(seed=8, a=feats))
    assert subject.asked == (RandomViews(3, 8), 30)
    assert found['lidar', 'a'].values == [lidar(feats, images)]
    first, second = feats[images.diff(prepend=images[:1] - 1) > 0], feats[1::3]
    near = found['alignment', 'a']
    assert near.values == [alignment(first, second)]
    others = [
        alignment(first, second.roll(shift, 0)) for shift in range(1, 30)
    ]
    assert near.chance == pytest.approx(np.mean(others))
    assert near.values[0] < 0.1 * near.chance
    want = (uniformity(first) + uniformity(second)) / 2
    assert found['uniformity', 'a'].values == [want]
    kept = found['neighbors_kept', 'a']
    assert kept.chance == pytest.approx(100 * 4 / 29)
    assert kept.chance < kept.values[0] < 100


def test_invariance_of_each_angle():
    upright = draw(300, 8)
    versions = torch.stack(
        # the same; another length and a little else; something else
        [
            upright,
            upright,
            3 * upright + draw(300, 8, seed=1),
            draw(300, 8, seed=2) + 1,
        ],
        1,
    )
    subject = StandIn(a=versions.flatten(0, 1))
    found = measure(Invariance(max_images=300), subject)
    assert subject.asked == (Rotations(), 300)
    values = {metric: one.values[0] for (metric, _), one in found.items()}
    assert values['neighbors_90'] == 100
    assert values['cosine_90'] == pytest.approx(1)
    assert 30 < values['neighbors_180'] < 90
    assert 0.8 < values['cosine_180'] < 0.99
    chance = found['neighbors_270', 'a'].chance
    assert chance == pytest.approx(100 * 10 / 299)
    assert values['neighbors_270'] == pytest.approx(chance, abs=2)
    other = found['cosine_270', 'a'].chance
    assert values['cosine_270'] == pytest.approx(other, abs=0.1)


def test_rotations_of_an_image_are_in_one_half(monkeypatch):
    image = torch.arange(21.0).repeat_interleave(4)
    turn = torch.arange(4.0).repeat(21)
    asked = []

    def probe(feats, labels, queries):
        asked.append((feats, queries))
        assert feats[:, 1].tolist() == labels.tolist()
        # right but for an image's last two rotations
        wrong = (queries[:, 0] == queries[0, 0]) & (queries[:, 1] > 1)
        return torch.where(wrong, 0, queries[:, 1].long())

    monkeypatch.setattr(rotation_probe, 'linear_probe', probe)
    subject = StandIn(seed=2, a=torch.stack([image, turn], 1))
    (found,) = RotationProbe(max_images=30).run(subject)
    assert subject.asked == (Rotations(), 30)
    ((train, test),) = asked
    assert len(train) == 40
    assert len(test) == 44
    halves = [set(half[:, 0].tolist()) for half in (train, test)]
    assert halves[0].isdisjoint(halves[1])
    assert len(halves[0] | halves[1]) == 21
    assert found.correct.dtype == np.float32
    assert found.correct.tolist() == [0.5] + [1] * 10
    assert found.values == [pytest.approx(100 * 42 / 44)]
    assert found.chance == 25
    # other images for another seed, the same for the same
    for seed, same in ((2, True), (3, False)):
        subject.seed = seed
        list(RotationProbe().run(subject))
        assert torch.equal(asked[-1][0], train) == same


def test_rotation_probe_learns_what_there_is():
    turned = torch.eye(4).repeat(100, 1)
    feats = torch.cat([turned + 0.2 * draw(400, 4), draw(400, 6)], 1)
    known = measure(RotationProbe(), StandIn(a=feats))['accuracy', 'a']
    assert known.values[0] > 95
    none = measure(RotationProbe(), StandIn(a=feats[:, 4:]))['accuracy', 'a']
    assert none.values[0] == pytest.approx(25, abs=12)
    # an image's own features help nobody: no copy is in both halves
    own = draw(100, 60).repeat_interleave(4, 0)
    turns = torch.arange(4).repeat(100)
    both = torch.cat([own, own * turns[:, None].sub(1.5)], 1)
    leak = linear_probe(both, turns, both)
    assert (leak == turns).float().mean() > 0.5
    fair = measure(RotationProbe(), StandIn(a=both))['accuracy', 'a']
    assert fair.values[0] < 45


@pytest.mark.parametrize(
    ('protocol', 'copies', 'least'),
    [
        (Geometry(), 1, 20),
        (Geometry(clusters=15), 1, 30),
        (Views(views=2), 2, 11),
        (Invariance(neighbors=4), 4, 5),
        (RotationProbe(), 4, 2),
    ],
)
def test_too_few_images(protocol, copies, least):
    # the first number that will do
    feats = draw(copies * least, 5)
    assert list(protocol.run(StandIn(a=feats)))
    message = f'^{protocol.name} needs at least {least} .* got {least - 1}'
    with pytest.raises(InputError, match=message):
        list(protocol.run(StandIn(a=feats[copies:])))


@pytest.mark.parametrize('protocol', ALL)
def test_a_network_that_diverged_is_told(protocol):
    feats = draw(240, 5)
    for value in (math.nan, math.inf):
        feats[7, 2] = value
        with pytest.raises(InputError, match='stage b are NaN or infinite'):
            list(protocol().run(StandIn(a=draw(240, 5), b=feats)))
