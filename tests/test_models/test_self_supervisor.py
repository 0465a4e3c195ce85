"""What all algorithms inherit."""

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.models import SelfSupervisor


class Stages(nn.Module):
    """A backbone that gives a map and a vector."""

    def forward(self, x):
        return x[:, :2], x.sum((2, 3))


class Plain(SelfSupervisor):
    def loss(self, inputs, data_samples):
        return dict(loss=inputs.sum(), samples=data_samples)


class Predicting(Plain):
    def predict_fields(self, inputs, feats):
        assert torch.equal(feats[0], inputs[:, :2])
        return dict(double=2 * inputs, half=inputs.mean((1, 2, 3)) / 2)


IMAGES = torch.arange(24.0).view(2, 3, 2, 2)


def test_modes():
    model = Plain(Stages())
    maps, vectors = model(IMAGES)
    assert torch.equal(maps, IMAGES[:, :2])
    losses = model(IMAGES, ['one', 'two'], mode='loss')
    assert losses == dict(loss=IMAGES.sum(), samples=['one', 'two'])
    found = model(IMAGES, mode='predict')
    for i, sample in enumerate(found):
        assert set(sample.keys()) == {'feats'}
        mean, vector = sample.feats
        np.testing.assert_allclose(mean, IMAGES[i, :2].mean((1, 2)))
        assert torch.equal(vector, vectors[i])
    with pytest.raises(RuntimeError, match='"logits"'):
        model(IMAGES, mode='logits')


def test_predicted_fields_go_to_the_samples_that_were_given():
    samples = [DataSample(), DataSample()]
    found = Predicting(Stages()).predict(IMAGES, samples)
    for i, (sample, given) in enumerate(zip(found, samples, strict=True)):
        assert sample is given
        assert torch.equal(sample.double, 2 * IMAGES[i])
        assert float(sample.half) == float(IMAGES[i].mean()) / 2
        assert len(sample.feats) == 2


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine'])
def test_preprocessor_of_any_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        plain = Plain(Stages())
        settings = dict(mean=[1.0] * 3, std=[2.0] * 3)
        changed = Plain(Stages(), data_preprocessor=settings)
    for model in (plain, changed):
        name = type(model.data_preprocessor).__name__
        assert name == 'SelfSupDataPreprocessor'
    assert float(changed.data_preprocessor.mean.flatten()[0]) == 1
    # what was given is left as it was
    assert settings == dict(mean=[1.0] * 3, std=[2.0] * 3)
    own = nn.Identity()
    assert Plain(Stages(), data_preprocessor=own).data_preprocessor is own


def test_fields_of_samples():
    samples = [DataSample(), DataSample()]
    for i, sample in enumerate(samples):
        sample.set_field(7 + i, 'label')
        sample.set_field(np.full(3, i, np.float32), 'row')
        sample.set_field(5 - i, 'sample_idx', field_type='metainfo')
    model = Plain(Stages())
    labels = model.read_field(samples, 'label', IMAGES, '')
    assert (labels.dtype, labels.tolist()) == (torch.int64, [7, 8])
    rows = model.read_field(samples, 'row', IMAGES, '')
    assert (rows.dtype, rows.tolist()) == (torch.float32, [[0] * 3, [1] * 3])
    assert model.sample_indices(samples, IMAGES).tolist() == [5, 4]
    for bad in (None, [], samples[:1], [samples[0], DataSample()]):
        with pytest.raises(ValueError, match=r'no label\. Add it\.'):
            model.read_field(bad, 'label', IMAGES, 'Add it.')
        with pytest.raises(ValueError, match=r'no sample_idx\. .*meta_keys'):
            model.sample_indices(bad, IMAGES)
