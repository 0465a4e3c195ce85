"""The single-rotation transform against numpy."""

import numpy as np
import pytest
import torch
from mmpretrain.datasets.transforms import PackInputs

from mm_rotssl.datasets.transforms import RandomRotationWithLabel

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)


@pytest.mark.parametrize(
    'rotations', [(0, 90, 180, 270), (90, 270), (0, 180), (270, 0, 90)]
)
@pytest.mark.parametrize('gray', [False, True])
def test_label_tells_the_angle(rotations, gray):
    image = IMAGE[..., 0] if gray else IMAGE
    transform = RandomRotationWithLabel(rotations)
    seen = set()
    for _ in range(60):
        results = transform(dict(img=image.copy(), gt_label=7))
        label = results['rotation_label']
        seen.add(label)
        want = np.rot90(image, rotations[label] // 90)
        np.testing.assert_array_equal(results['img'], want)
        assert results['img'].flags['C_CONTIGUOUS']
        assert results['img'].dtype == np.uint8
        assert results['gt_label'] == 7
    assert seen == set(range(len(rotations)))


def test_ninety_degrees_is_counter_clockwise():
    # the upper right corner goes to the upper left
    image = np.array([[0, 1], [2, 3]], np.uint8)
    transform = RandomRotationWithLabel((90, 180))
    results = transform(dict(img=image))
    while results['rotation_label'] != 0:
        results = transform(dict(img=image))
    np.testing.assert_array_equal(results['img'], [[1, 3], [0, 2]])


def test_labels_are_drawn_uniformly():
    transform = RandomRotationWithLabel()
    draws = 4000
    labels = [
        transform(dict(img=IMAGE))['rotation_label'] for _ in range(draws)
    ]
    counts = np.bincount(labels, minlength=4)
    # chi-square with 3 degrees of freedom: beyond 16.3 once in a thousand
    expected = draws / 4
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_drawn_from_the_seeded_generator():
    def draw():
        np.random.seed(3)
        transform = RandomRotationWithLabel()
        return [
            transform(dict(img=IMAGE))['rotation_label'] for _ in range(20)
        ]

    assert draw() == draw()


def test_through_pack_inputs():
    transform = RandomRotationWithLabel()
    pack = PackInputs(algorithm_keys=('rotation_label',))
    for _ in range(8):
        results = transform(dict(img=IMAGE, gt_label=7, img_path='a'))
        packed = pack(results)
        sample = packed['data_samples']
        assert sample.rotation_label == results['rotation_label']
        assert sample.gt_label.tolist() == [7]
        want = np.rot90(IMAGE, sample.rotation_label).transpose(2, 0, 1)
        assert torch.equal(packed['inputs'], torch.from_numpy(want.copy()))


def test_refusals():
    with pytest.raises(ValueError, match=r'height 6 and width 4.*crop'):
        RandomRotationWithLabel()(dict(img=IMAGE[:, :4]))
    with pytest.raises(ValueError, match=r'only multiples of 90.*model'):
        RandomRotationWithLabel((0, 45))
    with pytest.raises(ValueError, match='two or more different angles'):
        RandomRotationWithLabel((0, 0))
