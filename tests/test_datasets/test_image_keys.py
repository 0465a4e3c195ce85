import os
import re
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
)
from mmpretrain.datasets import KFoldDataset
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from mm_rotssl.datasets import Digits, ImageFolder, image_keys

NAMES = ['a/1 b.png', 'a/öhr.png', 'b/1.png', 'b/2.png', 'b/3.png']


class InMemory(BaseDataset):
    """Images without files, as CIFAR10 of mmpretrain has them."""

    def __init__(self, images, **kwargs):
        self.images = images
        super().__init__(data_prefix=dict(root=''), **kwargs)

    def load_data_list(self):
        return [dict(img=img, gt_label=0) for img in self.images]


class Named(BaseDataset):
    """Entries with a path that is not looked at."""

    def __init__(self, count=9, serialize_data=True, **kwargs):
        self.count = count
        super().__init__(serialize_data=serialize_data, **kwargs)

    def load_data_list(self):
        return [
            dict(img_path=f'p{i}', gt_label=int(i > 1))
            for i in range(self.count)
        ]

    def filter_data(self):
        if not self.filter_cfg:
            return self.data_list
        return [info for info in self.data_list if info['gt_label'] == 1]

    def get_cat_ids(self, idx):
        return [self.get_data_info(idx)['gt_label']]


def write_images(folder, names=NAMES):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4), (i, 0, 0)).save(folder / name)
    return folder


def test_names_in_a_folder_stay_when_it_is_moved(tmp_path, monkeypatch):
    old = write_images(tmp_path / 'old')
    assert image_keys(ImageFolder(str(old))) == NAMES
    assert image_keys(ImageFolder(f'{old}/')) == NAMES
    # with classes they are listed by sub-folder
    assert image_keys(ImageFolder(str(old), with_label=True)) == NAMES
    new = tmp_path / 'deep' / 'er'
    shutil.copytree(old, new)
    assert image_keys(ImageFolder(str(new))) == NAMES
    monkeypatch.chdir(tmp_path)
    for root in ('old', './old', 'deep/er/', '../' + tmp_path.name + '/old'):
        assert image_keys(ImageFolder(root)) == NAMES, root
    monkeypatch.chdir(old)
    assert image_keys(ImageFolder('.')) == NAMES
    assert image_keys(ImageFolder(data_prefix=str(new))) == NAMES


def test_names_below_a_prefix_of_the_root(tmp_path):
    write_images(tmp_path / 'data' / 'train')
    for prefix in ('train', 'train/', dict(img_path='train')):
        data = ImageFolder(str(tmp_path / 'data'), data_prefix=prefix)
        assert image_keys(data) == NAMES


def test_names_that_repeat_the_folder(tmp_path, monkeypatch):
    # only the beginning is taken off, and only once
    names = ['ab/ab/1.png', 'ab/x.png', 'b.png']
    write_images(tmp_path / 'ab', names)
    monkeypatch.chdir(tmp_path)
    for root in ('ab', 'ab/'):
        data = ImageFolder(root)
        assert image_keys(data) == names


def test_names_of_a_list(tmp_path):
    write_images(tmp_path)
    chosen = [NAMES[4], NAMES[0], NAMES[2]]
    (tmp_path / 'list.txt').write_text('\n'.join(chosen))
    data = ImageFolder(str(tmp_path), ann_file='list.txt')
    assert image_keys(data) == chosen


def test_a_folder_whose_name_begins_like_that_of_the_data_set(tmp_path):
    # a list may name files elsewhere; 'ab' is not the folder of 'abc/1.png'
    paths = [tmp_path / 'ab/c/1.png', tmp_path / 'abc/1.png']
    for path in paths:
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / 'list.txt').write_text('\n'.join(map(str, paths)))
    data = ImageFolder(str(tmp_path), data_prefix='ab', ann_file='list.txt')
    assert [data[i]['img_path'] for i in range(2)] == list(map(str, paths))
    first, second = image_keys(data)
    assert first == 'c/1.png'
    assert second.endswith('/abc/1.png')


def test_digits():
    data = Digits(split='val', size=8)
    keys = image_keys(data)
    # every fifth of the source
    assert keys == [f'digits/{i:04}' for i in range(4, 1797, 5)]
    # the names don't hang on the size
    assert image_keys(Digits(split='val', size=16)) == keys
    assert not set(keys) & set(image_keys(Digits(size=8)))


def pixels(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def test_images_in_memory_are_named_by_their_pixels():
    img = pixels(4, 6, 3)
    other = img.copy()
    # the last byte counts too
    other[-1, -1, -1] ^= 1
    images = [
        img,
        other,
        img.reshape(6, 4, 3),
        img.reshape(4, 6, 3, 1),
        img.view(np.int8),
        np.flip(img, 0),
        pixels(4, 6, 3, seed=1),
    ]
    keys = image_keys(InMemory(images))
    assert len(set(keys)) == len(images)
    assert all(re.fullmatch(r'pixels:[0-9a-f]{24}', key) for key in keys)
    # wherever they stand, and however they lie in memory
    shuffled = [images[i] for i in (3, 5, 0, 1)]
    shuffled[2] = np.asfortranarray(img)
    assert image_keys(InMemory(shuffled)) == [keys[i] for i in (3, 5, 0, 1)]
    assert image_keys(InMemory([img.copy()] * 2)) == [keys[0]] * 2


def test_names_of_pixels_are_kept():
    # they stand in files: another digest would make those useless
    img = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert image_keys(InMemory([img])) == ['pixels:3071ac54b4a84fb3865a7c00']


WRAPPERS = {
    'plain': lambda data: data,
    'lazy': lambda _: Named(lazy_init=True),
    'repeat': lambda data: RepeatDataset(data, times=3),
    'balanced': lambda data: ClassBalancedDataset(data, oversample_thr=0.9),
    'subset': lambda data: Subset(data, [5, 2, 7]),
    'one part': lambda data: ConcatDataset([data]),
    'nested': lambda data: Subset(RepeatDataset(data, times=2), [17, 3]),
    'nested part': lambda data: Subset(ConcatDataset([data]), [8, 3]),
}


@pytest.mark.parametrize('name', WRAPPERS)
def test_wrappers_count_the_images_inside(name):
    wrapper = WRAPPERS[name](Named())
    keys = image_keys(wrapper)
    assert keys == [f'p{i}' for i in range(9)]
    # what the wrapper gives is where its index says
    seen = [wrapper[i] for i in range(len(wrapper))]
    assert [keys[info['sample_idx']] for info in seen] == [
        info['img_path'] for info in seen
    ]
    if name == 'balanced':
        assert len(seen) > 9


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('seed', [None, 3])
@pytest.mark.parametrize('held_out', [True, False])
def test_folds(serialize, seed, held_out):
    order = list(range(9))
    if seed is not None:
        np.random.default_rng(seed).shuffle(order)
    parts = [order[0:2], order[2:4], order[4:6], order[6:9]]
    for fold in (1, 3):
        data = KFoldDataset(
            dict(type=Named, serialize_data=serialize),
            fold=fold,
            num_splits=4,
            test_mode=held_out,
            seed=seed,
        )
        want = [
            f'p{i}'
            for other, part in enumerate(parts)
            for i in part
            if (other == fold) == held_out
        ]
        assert image_keys(data) == want
        assert [data[i]['sample_idx'] for i in range(len(data))] == list(
            range(len(want))
        )
        assert [data[i]['img_path'] for i in range(len(data))] == want


@pytest.mark.parametrize('serialize', [True, False])
def test_a_part_is_counted_anew(serialize):
    for settings, want in (
        (dict(indices=[7, 2, 5]), [7, 2, 5]),
        (dict(indices=4), [0, 1, 2, 3]),
        (dict(indices=-3), [6, 7, 8]),
        (dict(filter_cfg=dict(label=1)), range(2, 9)),
        (dict(filter_cfg=dict(label=1), indices=[3, 0]), [5, 2]),
    ):
        data = Named(serialize_data=serialize, **settings)
        assert image_keys(data) == [f'p{i}' for i in want], settings
    subset = Named(serialize_data=serialize).get_subset([4, 1])
    assert image_keys(subset) == ['p4', 'p1']
    assert [subset[i]['sample_idx'] for i in range(2)] == [0, 1]


def test_joined_data_sets_are_refused():
    joined = ConcatDataset([Named(9), Named(4), Named(7)])
    for data in (joined, Subset(joined, [0, 1])):
        with pytest.raises(ValueError, match='joins 3 data') as caught:
            image_keys(data)
        message = str(caught.value)
        assert '(9 + 4 + 7 images)' in message
        assert 'Make one dataset of them' in message
        assert 'ImageFolder' in message
        assert 'ann_file' in message


def test_other_data_sets_are_refused():
    plain = TensorDataset(torch.zeros(3, 1))
    for data in (plain, Subset(plain, [0])):
        with pytest.raises(TypeError, match='is a TensorDataset') as caught:
            image_keys(data)
        assert 'sample_idx' in str(caught.value)
    with pytest.raises(TypeError, match='is a list'):
        image_keys([dict(img_path='a', sample_idx=0)])


class Miscounted(Named):
    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        # right at first
        info['sample_idx'] = max(0, idx - 2)
        return info


def test_a_wrong_index_is_refused():
    with pytest.raises(
        ValueError, match=r'Entry 1 of Miscounted .* sample_idx is 0'
    ):
        image_keys(Miscounted())


class Nameless(Named):
    def load_data_list(self):
        return [dict(file='a', gt_label=0)]


def test_an_entry_without_image_is_refused():
    with pytest.raises(TypeError, match='neither') as caught:
        image_keys(Nameless())
    assert 'file, gt_label' in str(caught.value)


def test_links_are_images_of_their_own(tmp_path):
    # the remedy for joined datasets: a folder with links to theirs
    for name in ('one', 'two'):
        write_images(tmp_path / name, ['1.png', '2.png'])
    (tmp_path / 'both').mkdir()
    for name in ('one', 'two'):
        os.symlink(tmp_path / name, tmp_path / 'both' / name)
    keys = image_keys(ImageFolder(str(tmp_path / 'both')))
    assert keys == ['one/1.png', 'one/2.png', 'two/1.png', 'two/2.png']
