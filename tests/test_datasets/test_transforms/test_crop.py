import math

import cv2
import numpy as np
import pytest
from mmpretrain.datasets.transforms import RandomResizedCrop

from mm_rotssl.datasets.transforms import RandomResizedCropFlip
from mm_rotssl.registry import TRANSFORMS


def image(height=37, width=50):
    rng = np.random.RandomState(0)
    return rng.randint(0, 256, (height, width, 3), dtype=np.uint8)


def draws(transform, img, count=4000):
    """Area, log of the shape and relative position of many crops."""
    np.random.seed(0)
    rows = []
    height, width = img.shape[:2]
    for _ in range(count):
        top, left, h, w = transform.rand_crop_params(img)
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w
        rows.append(
            (
                h * w / (height * width),
                math.log(w / h),
                (top + 0.5) / (height - h + 1),
                (left + 0.5) / (width - w + 1),
            )
        )
    return np.array(rows)


@pytest.mark.parametrize(
    'kwargs',
    [
        {},
        dict(crop_ratio_range=(0.2, 0.5), aspect_ratio_range=(0.5, 0.9)),
    ],
)
def test_crops_are_distributed_as_mmpretrains(kwargs):
    img = image(375, 500)
    ours = draws(RandomResizedCropFlip(24, **kwargs), img)
    theirs = draws(RandomResizedCrop(24, **kwargs), img)
    # standard errors of a quantile here are about 0.01 of the range
    spread = np.ptp(theirs, axis=0)
    for quantile in (0.1, 0.5, 0.9):
        difference = np.quantile(ours, quantile, axis=0) - np.quantile(
            theirs, quantile, axis=0
        )
        assert np.all(np.abs(difference) < 0.05 * spread), quantile


def test_every_position_is_drawn():
    crop = RandomResizedCropFlip(
        4, crop_ratio_range=(0.25, 0.25), aspect_ratio_range=(1, 1)
    )
    img = image(6, 6)
    np.random.seed(0)
    places = {crop.rand_crop_params(img)[:2] for _ in range(500)}
    assert places == {(y, x) for y in range(4) for x in range(4)}


def test_a_image_too_long_gives_the_center():
    crop = RandomResizedCropFlip(8, crop_ratio_range=(0.9, 1.0))
    top, left, height, width = crop.rand_crop_params(image(10, 1000))
    assert (top, left, height, width) == (0, 493, 10, 13)


@pytest.mark.parametrize('flip_prob', [0, 1])
def test_result_is_the_resized_crop(monkeypatch, flip_prob):
    img = image()
    crop = RandomResizedCropFlip((24, 16), flip_prob=flip_prob)
    monkeypatch.setattr(crop, 'rand_crop_params', lambda _: (3, 5, 20, 30))
    results = crop(dict(img=img.copy()))
    expected = cv2.resize(img[3:23, 5:35], (16, 24))
    if flip_prob:
        expected = expected[:, ::-1]
    assert np.array_equal(results['img'], expected)
    assert results['img_shape'] == (24, 16)
    assert results['flip'] is bool(flip_prob)


def test_flips_as_often_as_asked_for():
    np.random.seed(0)
    crop = RandomResizedCropFlip(4, flip_prob=0.3)
    flips = [crop(dict(img=image(8, 8)))['flip'] for _ in range(1000)]
    assert abs(np.mean(flips) - 0.3) < 0.05


def test_registered_and_readable():
    crop = TRANSFORMS.build(
        dict(type='mm_rotssl.RandomResizedCropFlip', scale=24, flip_prob=0.25)
    )
    assert 'scale=(24, 24)' in repr(crop)
    assert repr(crop).endswith('flip_prob=0.25)')


@pytest.mark.parametrize('flip_prob', [-0.1, 1.5])
def test_impossible_probability(flip_prob):
    with pytest.raises(ValueError, match=f'flip_prob={flip_prob}'):
        RandomResizedCropFlip(24, flip_prob=flip_prob)
