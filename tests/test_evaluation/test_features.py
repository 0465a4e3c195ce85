from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import Subset

from mm_rotssl.evaluation.feature_store import FeatureStore, stage_names
from mm_rotssl.evaluation.features import Features, class_names
from mm_rotssl.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / 'configs/_base_/datasets/digits.py'


@pytest.fixture(scope='module')
def model():
    init_default_scope('mmpretrain')
    return MODELS.build(
        dict(
            type='mm_rotssl.RotNet',
            backbone=dict(
                type='mm_rotssl.NIN',
                base_channels=6,
                num_stages=3,
                out_indices=(0, 2),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=6),
            data_preprocessor=Config.fromfile(DIGITS).data_preprocessor,
        )
    )


@pytest.fixture(scope='module')
def loaders():
    """Reference set and test images."""
    cfg = Config.fromfile(DIGITS)
    found = []
    for key, indices in (('reference_dataloader', 70), ('val_dataloader', 60)):
        dataset = dict(size=16, indices=indices, serialize_data=False)
        cfg.merge_from_dict({key: dict(batch_size=50, dataset=dataset)})
        found.append(Runner.build_dataloader(cfg[key]))
    return found


def test_features_equal_the_pooled_maps_in_order(model, loaders):
    loader = loaders[1]
    found = FeatureStore().extract(model.train(), loader)
    assert not model.training
    # the neck only pools: there is no embedding
    assert {name: tuple(f.shape) for name, f in found.stages.items()} == {
        '1': (60, 3),
        '3': (60, 6),
    }
    assert found.index.tolist() == list(range(60))
    data = loader.dataset
    assert found.labels.tolist() == [
        int(item['data_samples'].gt_label) for item in data
    ]
    images = torch.stack([item['inputs'] for item in data])
    with torch.no_grad():
        maps = model.backbone((images.float() - 78) / 87)
    for got, want in zip(found.stages.values(), maps, strict=True):
        torch.testing.assert_close(got, want.mean((2, 3)))
        assert not got.requires_grad


def test_both_sets_of_a_network(model, loaders):
    feats = Features.extract(model, *loaders)
    for found, labels, loader in (
        (feats.reference, feats.reference_labels, loaders[0]),
        (feats.test, feats.test_labels, loaders[1]),
    ):
        want = FeatureStore().extract(model, loader)
        assert torch.equal(labels, want.labels)
        for got, stage in zip(found, want.stages.values(), strict=True):
            assert torch.equal(got, stage)
    assert feats.stages == ['1', '3']
    assert feats.classes == list('0123456789')


calls = []


def largest(maps):
    calls.append(len(maps[0]))
    return [stage.amax((2, 3)) for stage in maps]


def test_settings_go_through_and_a_set_only_once(model, loaders):
    calls.clear()
    feats = Features.extract(model, loaders[1], loaders[1], pool=largest)
    assert calls == [50, 10]
    assert torch.equal(feats.reference[0], feats.test[0])
    assert torch.equal(feats.reference_labels, feats.test_labels)


def make(labels, classes):
    labels = torch.tensor(labels)
    return Features(['1'], classes, [], labels, [], labels)


def test_draws_are_independent_and_depend_on_the_seed():
    feats = make([0, 2] * 30, ['a', 'b', 'c'])
    first, second = feats.draw(3, 2, seed=4)
    for draw in (first, second):
        assert feats.reference_labels[draw].tolist() == [0] * 3 + [2] * 3
        assert len(draw.unique()) == 6
    assert set(first.tolist()) != set(second.tolist())
    again, _ = feats.draw(3, 2, seed=4)
    other, _ = feats.draw(3, 2, seed=5)
    assert torch.equal(first, again)
    assert set(first.tolist()) != set(other.tolist())


def test_too_few_labels_name_class_and_key():
    # of the class that does not occur nothing is asked
    feats = make([0, 0, 0, 2, 2], ['a', 'b', 'dog'])
    with pytest.raises(
        ValueError,
        match=r'3 labels a class .* class "dog" has only 2 images in '
        r'val_cfg\.reference_dataloader',
    ):
        feats.draw(3, 1, seed=0)
    assert len(feats.draw(2, 1, seed=0)[0]) == 4


@pytest.mark.parametrize(
    ('indices', 'count', 'names'),
    [
        ((0, 2), 2, ['1', '3']),
        (3, 1, ['4']),
        # which of the outputs these are is not known
        ((0, 1, 2), 2, ['1', '2']),
        ((-1,), 1, ['1']),
        ((), 2, ['1', '2']),
    ],
)
def test_stage_names(indices, count, names):
    assert stage_names(SimpleNamespace(out_indices=indices), count) == names


def test_class_names():
    named = SimpleNamespace(metainfo=dict(classes=('cat', 'dog')))
    assert class_names([object(), Subset(named, [0])], 3) == [
        *('cat', 'dog', '2')
    ]
    assert class_names([object()], 2) == ['0', '1']
