"""The embedded digits against scikit-learn and a float64 resize."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mm_rotssl.datasets import Digits


def bilinear(image, size):
    """Resize with pixel centers aligned and edges repeated, in float64."""
    scale = len(image) / size
    position = (np.arange(size) + 0.5) * scale - 0.5
    position = position.clip(0, len(image) - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, len(image) - 1)
    share = position - low
    rows = image[low] * (1 - share)[:, None] + image[high] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, high] * share


@pytest.fixture(scope='module')
def splits():
    return {split: Digits(split=split) for split in ('train', 'val')}


def numbers(dataset):
    return [
        int(dataset.get_data_info(i)['img_path'].split('/')[1])
        for i in range(len(dataset))
    ]


def test_splits_are_a_partition(splits):
    train, val = numbers(splits['train']), numbers(splits['val'])
    assert len(train) == 1438
    assert len(val) == 359
    assert sorted(train + val) == list(range(1797))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_all_classes_are_there(splits, split):
    labels = [
        splits[split].get_data_info(i)['gt_label']
        for i in range(len(splits[split]))
    ]
    assert np.bincount(labels, minlength=10).min() >= 20
    assert splits[split].metainfo['classes'] == tuple('0123456789')


@pytest.mark.parametrize('size', [32, 8, 20])
def test_against_the_source(size):
    images, labels = load_digits(return_X_y=True)
    for split in ('train', 'val'):
        dataset = Digits(split=split, size=size)
        for i, number in enumerate(numbers(dataset)):
            info = dataset.get_data_info(i)
            img = info['img']
            assert img.dtype == np.uint8
            assert img.shape == (size, size, 3)
            assert info['gt_label'] == labels[number]
            # 16 is the largest gray value of the source; it is rounded to
            # eight bits before and after the resize, hence one step
            want = bilinear(images[number].reshape(8, 8) * 255 / 16, size)
            for channel in range(3):
                assert np.abs(img[..., channel] - want).max() <= 0.5001


def test_pipeline_and_indices():
    dataset = Digits(
        indices=5, pipeline=[lambda results: results['img'].shape]
    )
    assert len(dataset) == 5
    assert dataset[4] == (32, 32, 3)


@pytest.mark.parametrize('split', ['test', '', None])
def test_bad_split(split):
    with pytest.raises(ValueError, match=rf"split='{split}'.*'train' or"):
        Digits(split=split)


def test_bad_size():
    with pytest.raises(ValueError, match='size=0'):
        Digits(size=0)
