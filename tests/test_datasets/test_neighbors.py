"""Files of neighbors, and the pairs that are made of them."""

from collections import Counter

import numpy as np
import pytest
from stand_ins import draw_images

from mm_rotssl.datasets import (
    NeighborPairs,
    Neighbors,
    image_keys,
)
from mm_rotssl.registry import DATASETS

KEYS = ['a', 'b', 'c', 'd']
POSITIONS = np.array([[1, 2], [0, 3], [3, 0], [2, 1]])


def test_written_and_read(tmp_path):
    file = tmp_path / 'n.npz'
    Neighbors(KEYS, POSITIONS, dict(k=2)).save(file)
    found = Neighbors.load(file)
    assert found.keys == KEYS
    assert found.made_by == dict(k=2)
    assert found.positions.tolist() == POSITIONS.tolist()


def test_in_the_order_of_a_dataset():
    """By the names, each a neighbor of the same as before."""
    order = ['c', 'a', 'd', 'b']
    found = Neighbors(KEYS, POSITIONS).rows(order, 'file')
    for row, name in zip(found, order, strict=True):
        want = [KEYS[i] for i in POSITIONS[KEYS.index(name)]]
        assert [order[i] for i in row] == want


@pytest.mark.parametrize(
    'keys',
    [KEYS[:3], [*KEYS, 'e'], ['a', 'b', 'c', 'e'], ['a', 'a', 'b', 'c']],
)
def test_of_other_images(keys):
    with pytest.raises(ValueError, match=r'"file" are of other images'):
        Neighbors(KEYS, POSITIONS).rows(keys, 'file')


@pytest.mark.parametrize(
    'positions',
    [
        POSITIONS[:3],
        POSITIONS[:, :0],
        np.array([[1], [1], [0], [0]]),
        np.array([[1], [0], [4], [0]]),
        np.array([[1], [0], [-1], [0]]),
    ],
)
def test_what_are_no_neighbors(tmp_path, positions):
    file = tmp_path / 'n.npz'
    Neighbors(KEYS, positions).save(file)
    with pytest.raises(ValueError, match=r'n\.npz.*mine-neighbors'):
        Neighbors.load(file)
    with pytest.raises(FileNotFoundError, match='mine-neighbors'):
        Neighbors.load(tmp_path / 'other.npz')


@pytest.fixture
def pairs(tmp_path):
    draw_images(tmp_path / 'images', 4, size=(8, 8))
    dataset = dict(
        type='mm_rotssl.ImageFolder',
        data_root=str(tmp_path / 'images'),
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(type='mmpretrain.PackInputs'),
        ],
    )
    keys = image_keys(DATASETS.build(dataset))
    file = tmp_path / 'n.npz'
    Neighbors(keys, POSITIONS).save(file)
    return dict(
        type='mm_rotssl.NeighborPairs', dataset=dataset, neighbors=str(file)
    )


def test_pairs(pairs):
    dataset = DATASETS.build(pairs)
    images = [dataset.dataset[i]['inputs'] for i in range(4)]
    assert len(dataset) == 4
    np.random.seed(0)
    for i in range(4):
        seen = Counter()
        for _ in range(150):
            sample = dataset[i]
            first, second = sample['inputs']
            assert first.equal(images[i])
            assert sample['data_samples'].sample_idx == i
            (found,) = (j for j in range(4) if second.equal(images[j]))
            seen[found] += 1
        # the image itself, too, all equally often
        assert set(seen) == {i, *POSITIONS[i].tolist()}
        assert min(seen.values()) > 30
    assert image_keys(dataset) == image_keys(dataset.dataset)


def test_fewer_neighbors(pairs):
    dataset = DATASETS.build(dict(pairs, num_neighbors=1))
    assert dataset.neighbors.tolist() == POSITIONS[:, :1].tolist()
    for number in (0, 3):
        with pytest.raises(ValueError, match=rf'num_neighbors={number} .* 2'):
            DATASETS.build(dict(pairs, num_neighbors=number))


def test_images_of_another_dataset(pairs):
    pairs['dataset'] = dict(type='mm_rotssl.Digits', pipeline=[], indices=4)
    with pytest.raises(ValueError, match='other images'):
        DATASETS.build(pairs)


def test_datasets_are_taken_as_they_are(pairs):
    inner = DATASETS.build(pairs['dataset'])
    dataset = NeighborPairs(inner, pairs['neighbors'])
    assert dataset.dataset is inner
    dataset.full_init()
    assert dataset.metainfo == inner.metainfo
    assert dataset.get_data_info(2) == inner.get_data_info(2)
