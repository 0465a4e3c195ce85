"""Folders as people have them."""

import gc
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.dataset import default_collate
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset
from PIL import Image
from torch.utils.data import DataLoader, _utils

from mm_rotssl.datasets import ImageFolder, image_keys
from mm_rotssl.datasets.transforms import BrokenImageError
from mm_rotssl.engine.hooks.epoch_seed_hook import _seed_worker
from mm_rotssl.utils import save_figure, write_image

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


def test_a_file_that_two_workers_read_at_once_is_named_once(
    tmp_path, log, monkeypatch
):
    folder = tmp_path / 'images'
    good_files(folder, 3)
    (folder / 'bad.png').write_bytes(b'')
    dataset = ImageFolder(str(folder), pipeline=PATH)
    place = image_keys(dataset).index('bad.png')
    load = CustomDataset.prepare_data

    def load_while_another_worker_does(self, idx):
        try:
            return load(self, idx)
        finally:
            dataset._broken[idx] = True

    monkeypatch.setattr(
        CustomDataset, 'prepare_data', load_while_another_worker_does
    )
    assert dataset.prepare_data(place) is None
    assert warnings_about(log, 'bad.png') == 0


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


LEFT_BEHIND = [
    '._x.jpg',
    '.hidden.png',
    '.Trash/x.png',
    '.thumbnails/normal/x.png',
    '.ipynb_checkpoints/x-checkpoint.png',
    '__MACOSX/x.png',
    '@eaDir/x.png/SYNO_THUMB_M.JPG',
    '$RECYCLE.BIN/x.png',
    'System Volume Information/x.png',
    'lost+found/x.png',
    'work_dirs/run/vis_data/x.png',
    'Thumbs.db',
    'desktop.ini',
]


@pytest.mark.parametrize('below', ['', 'cat', 'cat/deep'])
def test_what_systems_leave_behind_is_no_image(tmp_path, below):
    good_files(tmp_path / 'cat', 1)
    (tmp_path / 'dog').mkdir()
    noise(4, 4, 3).save(tmp_path / 'dog' / 'REX.JPeG')
    for name in LEFT_BEHIND:
        path = tmp_path / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(4, 4, 3).save(path, 'PNG')
    plain = ImageFolder(str(tmp_path))
    assert sorted(image_keys(plain)) == ['cat/good00.png', 'dog/REX.JPeG']
    labeled = ImageFolder(str(tmp_path), with_label=True)
    assert labeled.metainfo['classes'] == ('cat', 'dog')
    assert image_keys(labeled) == image_keys(plain)
    assert labeled.get_gt_labels().tolist() == [0, 1]
    # the folder itself may have any name
    assert len(ImageFolder(str(tmp_path / below / 'work_dirs'))) == 1


def test_results_of_this_package_are_no_images(tmp_path):
    good_files(tmp_path / 'cat', 1)
    save_figure(Figure(), tmp_path / 'cat' / 'seed_patches_sheet.png')
    # the page of sorted images
    write_image(tmp_path / 'classes' / 'class_00000.jpg', b'any')
    for with_label in (False, True):
        dataset = ImageFolder(str(tmp_path), with_label=with_label)
        assert image_keys(dataset) == ['cat/good00.png']
    assert dataset.metainfo['classes'] == ('cat',)
    # an image of such a name elsewhere is one
    noise(4, 4, 3).save(tmp_path / 'cat' / 'class_00000.jpg')
    assert len(ImageFolder(str(tmp_path))) == 2


def test_links(tmp_path):
    good_files(tmp_path / 'elsewhere', 2)
    root = tmp_path / 'root'
    (root / 'a').mkdir(parents=True)
    (root / 'a' / 'linked').symlink_to(tmp_path / 'elsewhere')
    (root / 'b').symlink_to(tmp_path / 'elsewhere')
    # circles: to the folder itself, and to one above
    (root / 'a' / 'self').symlink_to(root / 'a')
    (tmp_path / 'elsewhere' / 'up').symlink_to(root)
    (root / 'gone.png').symlink_to(tmp_path / 'gone.png')
    keys = image_keys(ImageFolder(str(root)))
    assert [key for key in keys if key.startswith('a/linked/good')] == [
        'a/linked/good00.png',
        'a/linked/good01.png',
    ]
    assert {'b/good00.png', 'b/good01.png'} <= set(keys)
    assert len(keys) < 10


@pytest.mark.parametrize(
    ('classes', 'labels'),
    [
        (['c', 'a', 'b'], [1, 2, 0]),
        (['a', 'b', 'c', 'd'], [0, 1, 2]),
        # names that are not the folders'
        (['tench', 'shark', 'ray'], [0, 1, 2]),
    ],
)
def test_names_of_classes_that_are_given(tmp_path, classes, labels):
    for name in 'abc':
        good_files(tmp_path / name, 1)
    dataset = ImageFolder(
        str(tmp_path), with_label=True, metainfo=dict(classes=classes)
    )
    assert dataset.get_gt_labels().tolist() == labels
    assert dataset.metainfo['classes'] == classes


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (['a', 'b'], r'folders c of .* not among the classes.*, a, b\.'),
        (['x', 'y'], '3 folders of classes, none of which .* 2 classes'),
    ],
)
def test_names_of_classes_that_do_not_fit(tmp_path, classes, message):
    for name in 'abc':
        good_files(tmp_path / name, 1)
    with pytest.raises(ValueError, match=message):
        ImageFolder(
            str(tmp_path), with_label=True, metainfo=dict(classes=classes)
        )


def test_an_empty_class_keeps_its_number(tmp_path, log):
    for name in 'abc':
        good_files(tmp_path / name, 1)
    (tmp_path / 'b' / 'good00.png').unlink()
    dataset = ImageFolder(str(tmp_path), with_label=True)
    assert dataset.get_gt_labels().tolist() == [0, 2]
    assert 'No image was found in the folder b of' in log.read_text()


def listed(tmp_path, text, with_label=False, **kwargs):
    good_files(tmp_path / 'cat', 3)
    (tmp_path / 'list.txt').write_bytes(text.encode())
    return ImageFolder(
        str(tmp_path), ann_file='list.txt', with_label=with_label, **kwargs
    )


def test_lists(tmp_path):
    plain = listed(tmp_path, 'cat/good02.png\r\n\ncat/good00.png\n')
    assert image_keys(plain) == ['cat/good02.png', 'cat/good00.png']
    (tmp_path / 'my cat.png').symlink_to('cat/good00.png')
    labeled = listed(tmp_path, 'cat/good01.png 7\nmy cat.png 0', True)
    assert image_keys(labeled) == ['cat/good01.png', 'my cat.png']
    assert labeled.get_gt_labels().tolist() == [7, 0]
    # on this system that is a name
    (tmp_path / 'a\\b.png').symlink_to('cat/good00.png')
    assert image_keys(listed(tmp_path, 'a\\b.png')) == ['a\\b.png']


@pytest.mark.parametrize(
    ('text', 'with_label', 'cause'),
    [
        ('cat/good00.png 1', False, 'behind the space.*with_label=True'),
        ('cat/good00.png,1', False, 'behind the comma.*the comma a space'),
        ('cat/good00.png,cat', True, 'behind the comma'),
        ('cat/good00.png\t1', False, 'behind the tab'),
        ('cat/good00.png;1', True, 'behind the semicolon'),
        ('cat\\good00.png', False, 'has backslashes: write slashes'),
        ('cat\\good00.png 1', True, 'has backslashes: write slashes'),
        ('cat\\good00.png,1', False, 'comma a space; it has backslashes'),
        ('"cat/good00.png"', False, 'has quotes: remove them'),
        ('\ufeffcat/good00.png', False, 'a byte order mark'),
        ('  cat/good00.png', False, 'spaces around the path'),
        ('cat/bad.png', False, r'no file ".*/cat/bad\.png"\. .*data_prefix'),
        ('cat/bad.png 1', True, r'no file ".*/cat/bad\.png"\. '),
    ],
)
def test_lists_in_another_form(tmp_path, text, with_label, cause):
    with pytest.raises(ValueError, match=rf'list\.txt, line 1: .*{cause}'):
        listed(tmp_path, text + '\n', with_label)


def test_one_bad_line_among_many_is_found_where_it_is_looked_for(tmp_path):
    lines = ['cat/good00.png'] * 30
    lines[-1] = 'cat/good00.png 5'
    with pytest.raises(ValueError, match='line 30: '):
        listed(tmp_path, '\n'.join(lines))


@pytest.mark.parametrize(
    ('label', 'message'),
    [
        ('x', 'must be a path, a space and the number of a class, from 0 to'),
        ('2', 'from 0 to 1'),
        ('-1', 'from 0 to 1'),
    ],
)
def test_labels_of_lists(tmp_path, label, message):
    with pytest.raises(ValueError, match=f'line 2: .*{message}'):
        listed(
            tmp_path,
            f'cat/good00.png 1\ncat/good01.png {label}',
            True,
            metainfo=dict(classes=['a', 'b']),
        )


def test_lists_that_are_not_there(tmp_path):
    with pytest.raises(RuntimeError, match=r'list\.txt" is empty'):
        listed(tmp_path, '\n\n')
    with pytest.raises(FileNotFoundError, match=r'no list ".*none\.txt".*ann'):
        ImageFolder(str(tmp_path), ann_file='none.txt')
