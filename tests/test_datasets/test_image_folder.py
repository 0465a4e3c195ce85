"""Folders as people have them."""

import gc
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.logging import MMLogger
from PIL import Image
from torch.utils.data import DataLoader, _utils

from mm_rotssl.datasets import ImageFolder
from mm_rotssl.datasets.transforms import BrokenImageError
from mm_rotssl.engine.hooks.epoch_seed_hook import _seed_worker

TRAIN = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
TEST = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
# the path alone, quickly
PATH = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='Resize', scale=(8, 8)),
    dict(type='PackInputs', meta_keys=('img_path',)),
]


def noise(height, width, *channels, top=256, dtype=np.uint8):
    rng = np.random.default_rng(height + width)
    shape = (height, width, *channels)
    return Image.fromarray(rng.integers(0, top, shape, dtype))


def good_files(folder, count, size=16):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise(size, size + i, 3).save(folder / f'good{i:02}.png')


def broken_files(folder, count=4):
    """Write one of each kind, then more of the last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'text.jpg').write_text('no image')
    noise(40, 40, 3).save(folder / 'cut.jpg')
    noise(40, 40, 3).save(folder / 'cut.png')
    names = ['empty.jpg', 'text.jpg', 'cut.jpg', 'cut.png']
    for name in names[2:]:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])
    for i in range(4, count):
        names.append(f'empty{i}.jpg')
        (folder / names[-1]).write_bytes(b'')
    return names


@pytest.fixture(autouse=True, scope='module')
def _no_waiting():
    """PyTorch waits so long for each worker after an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_utils, 'MP_STATUS_CHECK_INTERVAL', 0.2)
        yield
        gc.collect()


def read(dataset, workers):
    """Count the images of an epoch."""
    loader = DataLoader(
        dataset, 4, num_workers=workers, collate_fn=default_collate
    )
    return sum(len(batch['inputs']) for batch in loader)


def warnings_about(log, name):
    lines = log.read_text().splitlines()
    return sum('WARNING' in line and f'/{name}:' in line for line in lines)


@pytest.fixture(scope='module')
def zoo(tmp_path_factory):
    """One image of each kind, in sub-folders, with other files between."""
    root = tmp_path_factory.mktemp('zoo')
    deep = root / 'a' / 'b'
    deep.mkdir(parents=True)
    noise(50, 60).save(root / 'gray.png')
    noise(50, 60).save(root / 'gray.JPG')
    noise(50, 60, top=2**16, dtype=np.uint16).save(root / '16bit.png')
    noise(50, 60, 4).save(root / 'rgba.png')
    noise(50, 60, 2).save(root / 'gray_alpha.png')
    noise(50, 60, 3).quantize(8).save(root / 'palette.png')
    noise(50, 60, 3).convert('CMYK').save(deep / 'cmyk.jpeg')
    noise(1, 1, 3).save(deep / 'tiny.png')
    noise(1, 1, 3).save(deep / 'tiny.jpg')
    noise(1, 300, 3).save(deep / 'flat.png')
    noise(300, 1, 3).save(deep / 'thin.bmp')
    Image.new('RGB', (6000, 4000), (10, 20, 30)).save(deep / 'huge.jpg')
    noise(50, 60, 3).save(deep / 'misnamed.png', format='JPEG')
    noise(50, 60, 3).save(deep / 'a.webp')
    noise(50, 60, 3).save(deep / 'a.tif')
    noise(50, 60, 3).save(deep / 'a.ppm')
    (root / 'notes.txt').write_text('no image, and not named like one')
    return root


@pytest.mark.parametrize('pipeline', [TRAIN, TEST])
def test_all_kinds(zoo, pipeline):
    dataset = ImageFolder(str(zoo), pipeline=pipeline, test_mode=True)
    assert len(dataset) == 16
    for i in range(len(dataset)):
        inputs = dataset[i]['inputs']
        assert inputs.dtype == torch.uint8
        assert inputs.shape == (3, 224, 224)
        assert 'gt_label' not in dataset[i]['data_samples']


def test_huge_keeps_its_color(zoo):
    dataset = ImageFolder(str(zoo), pipeline=TRAIN)
    paths = [dataset.get_data_info(i)['img_path'] for i in range(16)]
    huge = next(i for i, path in enumerate(paths) if 'huge' in path)
    inputs = dataset[huge]['inputs'].long()
    bgr = torch.tensor([30, 20, 10])[:, None, None]
    assert (inputs - bgr).abs().max() <= 2


def test_order_is_by_name(tmp_path):
    for name in ('b.png', 'a/z.png', 'c.png', 'a/y.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise(4, 4, 3).save(tmp_path / name)
    dataset = ImageFolder(str(tmp_path))
    names = [
        os.path.relpath(dataset.get_data_info(i)['img_path'], tmp_path)
        for i in range(len(dataset))
    ]
    assert names == ['a/y.png', 'a/z.png', 'b.png', 'c.png']


def test_labels_from_folders(tmp_path):
    good_files(tmp_path / 'cat', 2)
    good_files(tmp_path / 'dog', 3)
    dataset = ImageFolder(str(tmp_path), with_label=True, pipeline=TEST)
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    labels = [int(dataset[i]['data_samples'].gt_label) for i in range(5)]
    assert labels == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ('workers', 'persistent'), [(0, False), (2, False), (2, True)]
)
def test_broken_files_are_named_once(tmp_path, log, workers, persistent):
    folder = tmp_path / 'images'
    good_files(folder, 9)
    broken = broken_files(folder)
    dataset = ImageFolder(str(folder), pipeline=PATH)
    # gone after the folder was listed
    (folder / 'good03.png').unlink()
    broken.append('good03.png')
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=workers,
        persistent_workers=persistent,
        collate_fn=default_collate,
        # forked workers have the logger
        multiprocessing_context='fork' if workers else None,
    )
    for _ in range(3):
        sizes = []
        for batch in loader:
            sizes.append(len(batch['inputs']))
            paths = [sample.img_path for sample in batch['data_samples']]
            assert not any(path.endswith(tuple(broken)) for path in paths)
        assert sizes == [4, 4, 4, 1]
    for name in broken:
        assert warnings_about(log, name) == 1, name
    assert log.read_text().count('WARNING') == 5


@pytest.mark.parametrize('workers', [0, 2])
def test_too_many_broken_files(tmp_path, workers):
    folder = tmp_path / 'images'
    good_files(folder, 30)
    broken = broken_files(folder, 6)

    def dataset(max_broken):
        return ImageFolder(str(folder), max_broken=max_broken, pipeline=PATH)

    assert read(dataset(6), workers) == 36
    # the text comes from the worker to the main process
    with pytest.raises(RuntimeError, match='more than max_broken=5') as info:
        read(dataset(5), workers)
    message = str(info.value)
    assert f'6 broken images in "{folder}/"' in message
    assert 'raise max_broken of the dataset' in message
    for name in broken:
        assert f'{folder}/{name}' in message


def test_none_may_be_broken(tmp_path):
    good_files(tmp_path, 3)
    (tmp_path / 'empty.jpg').write_bytes(b'')
    dataset = ImageFolder(str(tmp_path), max_broken=0, pipeline=PATH)
    with pytest.raises(RuntimeError, match='1 broken images'):
        dataset[0]


@pytest.mark.parametrize('count', [1, 5, 40])
def test_all_files_are_broken(tmp_path, count):
    for i in range(count):
        (tmp_path / f'{i}.jpg').write_bytes(b'')
    dataset = ImageFolder(str(tmp_path), max_broken=100, pipeline=PATH)
    text = f'{count} broken images in "{tmp_path}/", all that there are'
    with pytest.raises(RuntimeError, match=text) as info:
        dataset[0]
    # a long list is cut
    assert str(info.value).count('.jpg') == min(count, 20)
    assert ('and 20 more' in str(info.value)) == (count == 40)


@pytest.mark.parametrize('workers', [0, 1])
def test_test_mode_skips_nothing(tmp_path, workers):
    good_files(tmp_path, 2)
    broken_files(tmp_path)
    dataset = ImageFolder(str(tmp_path), pipeline=PATH, test_mode=True)
    with pytest.raises(BrokenImageError, match=r'cut\.jpg: .*truncated'):
        read(dataset, workers)


def test_replacement_is_reproducible(tmp_path):
    good_files(tmp_path / 'p', 40)
    broken_files(tmp_path / 'p')

    def paths(seed):
        torch.manual_seed(seed)
        loader = DataLoader(
            ImageFolder(str(tmp_path / 'p'), pipeline=PATH),
            4,
            num_workers=2,
            collate_fn=default_collate,
            worker_init_fn=_seed_worker,
        )
        return [
            sample.img_path
            for batch in loader
            for sample in batch['data_samples']
        ]

    assert paths(1) == paths(1)
    assert paths(1) != paths(2)


def test_other_ranks_are_heard(tmp_path, capsys, monkeypatch):
    good_files(tmp_path, 2)
    (tmp_path / 'empty.jpg').write_bytes(b'')
    monkeypatch.setattr('mm_rotssl.datasets.image_folder.get_rank', lambda: 1)
    logger = MMLogger.get_instance('test-rank-1')
    # what the engine sets for ranks other than 0
    logger.handlers[0].setLevel(logging.ERROR)
    try:
        ImageFolder(str(tmp_path), pipeline=PATH)[0]
    finally:
        MMLogger._instance_dict.pop('test-rank-1')
    assert 'empty.jpg: the file is empty' in capsys.readouterr().out


def test_subset_counts_for_itself(tmp_path):
    good_files(tmp_path, 3)
    (tmp_path / 'zero.jpg').write_bytes(b'')
    whole = ImageFolder(str(tmp_path), pipeline=PATH, max_broken=1)
    whole[3]
    subset = whole.get_subset([3, 0])
    # the broken one is at another place now
    assert subset[0]['data_samples'].img_path.endswith('good00.png')
    whole.get_subset_([3, 1, 2, 0])
    for i, name in enumerate(['good01', 'good02', 'good00'], 1):
        assert name in whole[i]['data_samples'].img_path


def test_other_errors_are_not_hidden(tmp_path):
    good_files(tmp_path, 2)

    def fail(_):
        raise OSError('disk on fire')

    dataset = ImageFolder(str(tmp_path), pipeline=[fail])
    with pytest.raises(OSError, match='disk on fire'):
        dataset[0]


def test_no_folder_given():
    with pytest.raises(
        ValueError, match=r'no folder.*train_dataloader\.dataset\.data_root'
    ):
        ImageFolder()


def test_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r'no folder ".*gone/".*looked from.*data_root'
    ):
        ImageFolder(str(tmp_path / 'gone'))
    (tmp_path / 'file.jpg').write_bytes(b'')
    with pytest.raises(FileNotFoundError, match=r'no folder ".*file\.jpg/"'):
        ImageFolder(str(tmp_path / 'file.jpg'))


@pytest.mark.parametrize('with_label', [False, True])
def test_empty_folder(tmp_path, with_label):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub' / 'notes.txt').write_text('')
    with pytest.raises(
        RuntimeError, match=r'No image.*\.jpeg.*all sub-folders.*extensions'
    ):
        ImageFolder(str(tmp_path), with_label=with_label)


def test_extensions(tmp_path):
    good_files(tmp_path, 1)
    shutil.copy(tmp_path / 'good00.png', tmp_path / 'scan.img')
    dataset = ImageFolder(str(tmp_path), extensions=('.img',), pipeline=PATH)
    assert len(dataset) == 1
    assert dataset[0]['data_samples'].img_path.endswith('scan.img')
