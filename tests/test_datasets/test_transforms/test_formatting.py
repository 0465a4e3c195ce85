import numpy as np
import pytest
import torch
from mmpretrain.datasets.transforms import (
    PackInputs as MMPretrainPackInputs,
)

from mm_rotssl.datasets.transforms import PackInputs


def image(*shape, dtype=np.uint8):
    return np.random.RandomState(0).randint(0, 256, shape).astype(dtype)


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('flipped', [False, True])
def test_channels_first(channels, flipped):
    img = image(5, 7, channels)
    if flipped:
        img = img[:, ::-1]
    tensor = PackInputs()(dict(img=img))['inputs']
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    expected = [
        [[img[y, x, c] for x in range(7)] for y in range(5)]
        for c in range(channels)
    ]
    assert np.array_equal(tensor.numpy(), np.array(expected))


def test_result_does_not_share_memory():
    img = image(5, 7, 3)
    before = img.copy()
    PackInputs()(dict(img=img))['inputs'].zero_()
    assert np.array_equal(img, before)


@pytest.mark.parametrize(
    'img',
    [
        image(5, 7, 3),
        image(5, 7),
        image(5, 7, 3, dtype=np.float32),
        image(5, 7, 3, dtype=np.int64),
        image(2, 3, 5, 7),
        torch.zeros(3, 5, 7),
    ],
    ids=['color', 'gray', 'float', 'int64', 'video', 'tensor'],
)
def test_as_mmpretrains(img):
    ours = PackInputs()(dict(img=img))['inputs']
    theirs = MMPretrainPackInputs()(dict(img=img))['inputs']
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs)


def test_data_sample_as_mmpretrains():
    results = dict(img=image(5, 7, 3), gt_label=3, img_path='a.jpg', flip=True)
    ours = PackInputs()(dict(results))['data_samples']
    theirs = MMPretrainPackInputs()(dict(results))['data_samples']
    assert ours.metainfo == theirs.metainfo
    assert torch.equal(ours.gt_label, theirs.gt_label)
