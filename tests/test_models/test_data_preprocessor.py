import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.structures import DataSample

from mm_rotssl.models.utils import (
    DeformationDataPreprocessor,
    MultiChannelDataPreprocessor,
)
from mm_rotssl.ops import deform_patches
from mm_rotssl.registry import MODELS

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
ORDERS = [{}, *[{x: True} for x in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr')]]


def batch(count=35, size=40, columns=16, seed=0):
    """Windows and numbers that reach out of them now and then."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (count, 3, size, size), np.uint8)
    middle = size / 2
    numbers = np.tile([24, 3, middle, -3, 24, middle], (count, 1))
    numbers = numbers + rng.normal(size=(count, 6))
    color = rng.uniform(0.5, 1.5, (count, 10))
    # summands and the hue
    color[:, [5, 8, 9]] -= 1
    numbers = np.hstack([numbers, color])[:, :columns].astype(np.float32)
    samples = []
    for i in range(count):
        sample = DataSample().set_gt_label(i)
        sample.set_field(numbers[i], 'deformation')
        samples.append(sample)
    data = dict(inputs=torch.from_numpy(inputs), data_samples=samples)
    return data, torch.from_numpy(numbers)


@pytest.mark.parametrize(
    ('size', 'normalize', 'columns'),
    [(24, False, 6), (32, True, 16), (50, True, 6)],
)
@pytest.mark.parametrize('order', ORDERS, ids=str)
def test_deforms_then_normalizes(normalize, order, size, columns):
    data, numbers = batch(columns=columns)
    kwargs = dict(mean=MEAN, std=STD) if normalize else {}
    preprocessor = MODELS.build(
        dict(
            type='mm_rotssl.DeformationDataPreprocessor',
            patch_size=size,
            **kwargs,
            **order,
        )
    )
    windows = data['inputs']
    want = deform_patches(windows.flip(1) if order else windows, numbers, size)
    want = want.double()
    if normalize:
        for channel in range(3):
            want[:, channel] -= MEAN[channel]
            want[:, channel] /= STD[channel]
    got = preprocessor(data, training=True)
    assert got.keys() == {'inputs', 'data_samples'}
    assert got['inputs'].dtype == torch.float32
    assert got['inputs'].shape == (35, 3, size, size)
    np.testing.assert_allclose(got['inputs'], want, atol=1e-4)
    # training or not, it is drawn already
    again = preprocessor(data)
    assert torch.equal(again['inputs'], got['inputs'])
    assert [x.gt_label.item() for x in got['data_samples']] == [*range(35)]


def test_default_size():
    data, _ = batch(2)
    got = DeformationDataPreprocessor()(data)['inputs']
    assert got.shape == (2, 3, 32, 32)


def test_each_sample_has_its_own_numbers():
    data, _ = batch(6)
    order = [3, 5, 0, 2, 4, 1]
    preprocessor = DeformationDataPreprocessor(20)
    want = preprocessor(data)['inputs'][order]
    samples = [data['data_samples'][i] for i in order]
    got = preprocessor(
        dict(inputs=data['inputs'][order], data_samples=samples)
    )['inputs']
    torch.testing.assert_close(got, want, rtol=0, atol=0.01)


def test_batch_stays_as_it_is():
    data, numbers = batch()
    before = copy.deepcopy(data)
    DeformationDataPreprocessor(24, mean=MEAN, std=STD, bgr_to_rgb=True)(data)
    assert data.keys() == {'inputs', 'data_samples'}
    assert torch.equal(data['inputs'], before['inputs'])
    assert data['inputs'].dtype == torch.uint8
    for sample, row in zip(data['data_samples'], numbers, strict=True):
        np.testing.assert_array_equal(sample.deformation, row)


def test_autocast_changes_nothing():
    data, _ = batch()
    preprocessor = DeformationDataPreprocessor(24, mean=MEAN, std=STD)
    want = preprocessor(data)['inputs']
    with torch.autocast('cpu', torch.bfloat16):
        got = preprocessor(data)['inputs']
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


@pytest.mark.parametrize('order', ORDERS, ids=str)
@pytest.mark.parametrize(
    ('samples', 'normalize'), [('plain', True), (None, False), ('views', True)]
)
def test_batches_without_deformations(normalize, order, samples):
    data, _ = batch(5)
    inputs = data['inputs']
    if samples == 'plain':
        data['data_samples'] = [DataSample().set_gt_label(i) for i in range(5)]
    else:
        data['data_samples'] = None
    if samples == 'views':
        data['inputs'] = [inputs, inputs[..., 7:]]
    kwargs = dict(mean=MEAN, std=STD) if normalize else {}
    want = SelfSupDataPreprocessor(**kwargs, **order)(data)
    got = DeformationDataPreprocessor(24, **kwargs, **order)(data)
    assert got.keys() == want.keys()
    if samples == 'views':
        for one, other in zip(got['inputs'], want['inputs'], strict=True):
            assert torch.equal(one, other)
    else:
        # nothing was cut
        assert got['inputs'].shape == (5, 3, 40, 40)
        assert torch.equal(got['inputs'], want['inputs'])
        assert got['inputs'].dtype == want['inputs'].dtype
    if samples == 'plain':
        labels = [x.gt_label.item() for x in got['data_samples']]
        assert labels == [*range(5)]
    else:
        assert got['data_samples'] is None


@pytest.mark.parametrize('columns', [6, 16])
def test_moves_to_its_device(monkeypatch, columns):
    # A device without memory refuses what is not moved to it; autocast does
    # not know it.
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())
    data, _ = batch(3, columns=columns)
    preprocessor = DeformationDataPreprocessor(24, mean=MEAN, std=STD)
    got = preprocessor.to('meta')(data)
    assert got['inputs'].device.type == 'meta'
    assert got['inputs'].shape == (3, 3, 24, 24)
    assert got['data_samples'][0].gt_label.device.type == 'meta'


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 7])
@pytest.mark.parametrize('views', [None, 2])
def test_any_number_of_channels(channels, views):
    mean = [10.0 * (i + 1) for i in range(channels)]
    std = [1.0 + i for i in range(channels)]
    preprocessor = MultiChannelDataPreprocessor(mean=mean, std=std)
    images = torch.randint(0, 256, (3, channels, 4, 5), dtype=torch.uint8)
    inputs = [images] * views if views else images
    got = preprocessor(dict(inputs=inputs, data_samples=[]))['inputs']
    for result in got if views else [got]:
        for i in range(channels):
            want = (images[:, i].float() - mean[i]) / std[i]
            torch.testing.assert_close(result[:, i], want)
    # nothing more in checkpoints
    assert not preprocessor.state_dict()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(mean=[1] * 4, std=[1] * 3), 'one number a channel in each'),
        (dict(mean=[1] * 4, std=[1, 1, 0, 1]), 'those of std positive'),
        (dict(mean=[1] * 4), 'one number a channel in each'),
        (
            dict(mean=[1] * 4, std=[1] * 4, bgr_to_rgb=True),
            'bgr_to_rgb=True of .*: there are 4 channels',
        ),
        (
            dict(mean=[1] * 4, std=[1] * 4, rgb_channels=(0, 1, 4)),
            'three positions among the 4 channels',
        ),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        MultiChannelDataPreprocessor(**settings)


def test_images_with_other_channels():
    preprocessor = MultiChannelDataPreprocessor(mean=[1] * 4, std=[1] * 4)
    with pytest.raises(
        ValueError, match=r"have 3 channels, and .* has 4 means.*'unchanged'"
    ):
        preprocessor(dict(inputs=torch.zeros(2, 3, 4, 4), data_samples=[]))
