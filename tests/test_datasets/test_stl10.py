"""Archives of a few images, written byte by byte as STL-10 defines."""

import copy
import gc
import hashlib
import pickle
import re
import shutil

import numpy as np
import pytest
import torchvision
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from mm_rotssl.datasets import STL10, image_keys

URL = 'http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz'
CLASSES = [
    *('airplane', 'bird', 'car', 'cat', 'deer'),
    *('dog', 'horse', 'monkey', 'ship', 'truck'),
]
COUNTS = dict(train=8, test=3, unlabeled=5)
# as in the files
LABELS = dict(train=[10, 1, 5, 2, 2, 9, 3, 7], test=[4, 10, 1])
FOLDS = [[(3 * i + 5) % 8, i % 4 + 4, i % 3] for i in range(10)]
# what each split is made of
PARTS = {
    'train': ['train'],
    'test': ['test'],
    'unlabeled': ['unlabeled'],
    'train+unlabeled': ['train', 'unlabeled'],
}


def brightness(part, number, row, column, channel):
    seed = 97 * list(COUNTS).index(part) + 41 * number
    return (seed + 7 * row + row * column + 3 * column + 85 * channel) % 256


@pytest.fixture(scope='module', autouse=True)
def _quick_collection():
    # each dataset collects garbage when it is made: 0.2 s with PyTorch
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope='module')
def archive(tmp_path_factory):
    """A folder with stl10_binary, and its images [row, column, channel]."""
    root = tmp_path_factory.mktemp('stl10')
    folder = root / 'stl10_binary'
    folder.mkdir()
    images = {}
    for part, count in COUNTS.items():
        content = bytearray()
        for number in range(count):
            image = np.zeros((96, 96, 3), np.uint8)
            for channel in range(3):
                for column in range(96):
                    for row in range(96):
                        value = brightness(part, number, row, column, channel)
                        content.append(value)
                        image[row, column, channel] = value
            images[part, number] = image
        (folder / f'{part}_X.bin').write_bytes(content)
    for part, labels in LABELS.items():
        (folder / f'{part}_y.bin').write_bytes(bytes(labels))
    (folder / 'class_names.txt').write_text('\n'.join(CLASSES))
    lines = [' '.join(map(str, fold)) for fold in FOLDS]
    (folder / 'fold_indices.txt').write_text('\n'.join(lines))
    return root, images


@pytest.fixture
def root(archive, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(archive[0], tmp_path / 'copy')


@pytest.fixture
def known_sums(archive, monkeypatch):
    """Let the archive be the release."""

    def listed(*names):
        return [
            [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]
            for name in names
        ]

    folder = archive[0] / 'stl10_binary'
    published = torchvision.datasets.STL10
    train = listed('train_X.bin', 'train_y.bin', 'unlabeled_X.bin')
    monkeypatch.setattr(published, 'train_list', train)
    test = listed('test_X.bin', 'test_y.bin')
    monkeypatch.setattr(published, 'test_list', test)
    return dict(train + test)


def unverified(root, **kwargs):
    return STL10(str(root), verify_checksum=False, **kwargs)


def assert_entries(dataset, images, want):
    """Compare with (part, number) of the archive, in this order."""
    assert len(dataset) == len(want)
    for i, (part, number) in enumerate(want):
        info = dataset.get_data_info(i)
        assert info['sample_idx'] == i
        assert info['img_path'] == f'stl10/{part}/00000{number}'
        np.testing.assert_array_equal(info['img'], images[part, number])
        if part == 'unlabeled':
            assert 'gt_label' not in info
        else:
            assert info['gt_label'] == LABELS[part][number] - 1
            assert type(info['gt_label']) is int


def everything(split):
    return [(part, i) for part in PARTS[split] for i in range(COUNTS[part])]


@pytest.mark.parametrize('split', PARTS)
def test_against_the_format(archive, split):
    root, images = archive
    dataset = unverified(root, split=split)
    assert_entries(dataset, images, everything(split))
    assert dataset.metainfo['classes'] == tuple(CLASSES)


@pytest.mark.usefixtures('known_sums')
@pytest.mark.parametrize('split', PARTS)
def test_against_torchvision(archive, split):
    root, _ = archive
    theirs = torchvision.datasets.STL10(root, split=split)
    ours = STL10(str(root), split=split)
    assert len(ours) == len(theirs)
    for i, (image, label) in enumerate(theirs):
        info = ours.get_data_info(i)
        np.testing.assert_array_equal(info['img'], np.asarray(image))
        # theirs is -1 where there is none
        assert info.get('gt_label', -1) == label
    assert list(ours.metainfo['classes']) == theirs.classes


def test_train_is_the_default(archive):
    assert_entries(unverified(archive[0]), archive[1], everything('train'))


def test_images_are_plain_arrays_of_ones_own(archive):
    root, images = archive
    dataset = unverified(root, serialize_data=False)
    img = dataset.get_data_info(2)['img']
    assert type(img) is np.ndarray
    assert img.dtype == np.uint8
    assert img.flags.c_contiguous
    img += 1
    info = dataset.get_data_info(2)
    np.testing.assert_array_equal(info['img'], images['train', 2])


def test_pipeline(archive):
    root, images = archive
    dataset = DATASETS.build(
        dict(
            type='mm_rotssl.STL10',
            data_root=str(root),
            split='test',
            verify_checksum=False,
            pipeline=[dict(type='mmpretrain.PackInputs')],
        )
    )
    packed = dataset[2]
    want = images['test', 2].transpose(2, 0, 1)
    np.testing.assert_array_equal(packed['inputs'].numpy(), want)
    assert packed['data_samples'].gt_label.tolist() == [0]
    assert packed['data_samples'].img_path == 'stl10/test/000002'


def test_either_folder(archive, monkeypatch):
    root, images = archive
    want = everything('test')
    inner = root / 'stl10_binary'
    assert_entries(unverified(inner, split='test'), images, want)
    monkeypatch.chdir(inner)
    here = unverified('.', split='test')
    above = unverified('..', split='test')
    # read after the directory has changed
    monkeypatch.chdir('/')
    assert_entries(here, images, want)
    assert_entries(above, images, want)


@pytest.mark.parametrize('fold', [0, 1, 9])
def test_a_fold(archive, fold):
    root, images = archive
    want = [('train', number) for number in FOLDS[fold]]
    assert_entries(unverified(root, fold=fold), images, want)


def test_all_folds(archive):
    root, images = archive
    for dataset in (unverified(root), unverified(root, fold=3)):
        folds = dataset.folds()
        assert [fold.tolist() for fold in folds] == FOLDS
        assert {fold.dtype for fold in folds} == {np.dtype(np.int64)}
    subset = unverified(root).get_subset(folds[4].tolist())
    want = [('train', number) for number in FOLDS[4]]
    assert_entries(subset, images, want)


def test_white_space_in_the_folds(root):
    file = root / 'stl10_binary' / 'fold_indices.txt'
    lines = ['  '.join(map(str, fold)) + ' ' for fold in FOLDS]
    file.write_bytes('\r\n'.join(lines).encode() + b'\r\n\r\n')
    assert [fold.tolist() for fold in unverified(root).folds()] == FOLDS


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('split', PARTS)
def test_subsets(archive, split, serialize):
    root, images = archive
    kwargs = dict(split=split, serialize_data=serialize)
    full = everything(split)
    last, some = full[-2:], [full[i] for i in (2, 0, 2)]
    dataset = unverified(root, indices=2, **kwargs)
    assert_entries(dataset, images, full[:2])
    dataset = unverified(root, indices=-2, **kwargs)
    assert_entries(dataset, images, last)
    dataset = unverified(root, indices=[2, 0, 2], **kwargs)
    assert_entries(dataset, images, some)
    dataset = unverified(root, **kwargs)
    assert_entries(dataset.get_subset(-2), images, last)
    subset = dataset.get_subset([2, 0, 2])
    assert_entries(subset, images, some)
    subset.get_subset_([1])
    assert_entries(subset, images, full[:1])
    assert_entries(dataset, images, full)


def test_indices_of_a_fold(archive):
    root, images = archive
    dataset = unverified(root, fold=2, indices=[2, 1])
    want = [('train', FOLDS[2][2]), ('train', FOLDS[2][1])]
    assert_entries(dataset, images, want)


def test_names_stay_when_the_folder_is_moved(archive, tmp_path, monkeypatch):
    want = [f'stl10/train/00000{i}' for i in range(8)]
    want += [f'stl10/unlabeled/00000{i}' for i in range(5)]
    shutil.copytree(archive[0], tmp_path / 'stl10')
    monkeypatch.chdir(tmp_path)
    # the second is how the names begin, too
    for root in (archive[0], 'stl10', 'stl10/stl10_binary'):
        dataset = unverified(root, split='train+unlabeled')
        assert image_keys(dataset) == want


def test_copies_hold_no_images(archive):
    root, images = archive
    want = everything('train+unlabeled')
    dataset = unverified(root, split='train+unlabeled')
    # what has been read must not stay
    assert_entries(dataset, images, want)
    content = pickle.dumps(dataset)
    assert len(content) < 27_648 / 2
    assert_entries(pickle.loads(content), images, want)
    assert_entries(copy.deepcopy(dataset), images, want)


def read(info):
    return info['img_path'], info['img']


def test_workers(archive):
    root, images = archive
    dataset = unverified(root, split='unlabeled', pipeline=[read])
    # opened in this process, then in the others
    assert dataset[0][0] == 'stl10/unlabeled/000000'
    loader = DataLoader(
        dataset, batch_size=None, num_workers=2, collate_fn=lambda x: x
    )
    for _ in range(2):
        for i, (name, img) in enumerate(loader):
            assert name == f'stl10/unlabeled/00000{i}'
            np.testing.assert_array_equal(img, images['unlabeled', i])
        assert i == 4


def test_the_size_of_the_release(archive, tmp_path):
    _, images = archive
    last = images['unlabeled', 3]
    with (tmp_path / 'unlabeled_X.bin').open('wb') as file:
        # a hole on most file systems, so nothing is written before
        file.seek(99_999 * 27_648)
        file.write(last.transpose(2, 1, 0).tobytes())
    dataset = unverified(tmp_path, split='unlabeled')
    assert len(dataset) == 100_000
    assert dataset.data_bytes.nbytes < 10_000_000
    for i, want in ((99_999, last), (99_998, 0 * last)):
        info = dataset.get_data_info(i)
        assert info['img_path'] == f'stl10/unlabeled/{i:06}'
        np.testing.assert_array_equal(info['img'], want)


FILES = {
    'train': ['train_X.bin', 'train_y.bin'],
    'test': ['test_X.bin', 'test_y.bin'],
    'unlabeled': ['unlabeled_X.bin'],
    'train+unlabeled': ['train_X.bin', 'train_y.bin', 'unlabeled_X.bin'],
}


@pytest.mark.parametrize(
    ('split', 'name'),
    [(split, name) for split, names in FILES.items() for name in names],
)
def test_another_checksum(root, known_sums, split, name):
    STL10(str(root), split=split)
    file = root / 'stl10_binary' / name
    content = bytearray(file.read_bytes())
    # to another label
    content[-1] = 8
    file.write_bytes(content)
    found = hashlib.md5(content).hexdigest()
    with pytest.raises(ValueError, match='not the file of the rel') as caught:
        STL10(str(root), split=split)
    message = str(caught.value)
    assert f'"{file}"' in message
    assert f'{found} instead of {known_sums[name]}' in message
    assert 'again' in message
    assert 'verify_checksum=False' in message
    unverified(root, split=split)


@pytest.mark.parametrize(('split', 'names'), FILES.items())
def test_checksums_once_of_what_the_split_needs(
    root, known_sums, monkeypatch, split, names
):
    for other in known_sums.keys() - set(names):
        (root / 'stl10_binary' / other).write_bytes(b'damaged')
    sums = []

    def counted(file):
        sums.append(file.name)
        return hashlib.md5(file.read_bytes()).hexdigest()

    utils = torchvision.datasets.utils
    monkeypatch.setattr(utils, 'calculate_md5', counted)
    dataset = STL10(str(root), split=split)
    dataset.full_init()
    dataset.get_subset(2).get_data_info(1)
    copy.deepcopy(dataset).get_data_info(1)
    if split == 'train':
        dataset.folds()
    assert sums == names
    unverified(root, split=split)
    assert sums == names


@pytest.mark.parametrize('split', PARTS)
def test_small_archives_are_not_the_release(archive, split):
    with pytest.raises(ValueError, match=r'MD5 .* verify_checksum=False'):
        STL10(str(archive[0]), split=split)


@pytest.mark.parametrize(
    ('part', 'size', 'released', 'verify'),
    [
        ('train', 55_297, '138,240,000', True),
        ('train', 0, '138,240,000', False),
        ('test', 27_647, '221,184,000', False),
        ('unlabeled', 27_648 * 4 + 100, '2,764,800,000', True),
    ],
)
def test_truncated_images(root, part, size, released, verify):
    file = root / 'stl10_binary' / f'{part}_X.bin'
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match='no multiple of') as caught:
        STL10(str(root), split=part, verify_checksum=verify)
    message = str(caught.value)
    assert f'"{file}" has {size:,} bytes' in message
    assert released in message
    assert URL in message
    assert 'again' in message


@pytest.mark.usefixtures('known_sums')
@pytest.mark.parametrize(
    ('part', 'size', 'verify'), [('train', 7, True), ('test', 4, False)]
)
def test_labels_of_other_number(root, part, size, verify):
    file = root / 'stl10_binary' / f'{part}_y.bin'
    file.write_bytes((file.read_bytes() * 2)[:size])
    with pytest.raises(ValueError, match='one for each label') as caught:
        STL10(str(root), split=part, verify_checksum=verify)
    message = str(caught.value)
    assert f'"{file}" has {size} bytes' in message
    assert f'{COUNTS[part]} images' in message
    assert URL in message


def test_images_truncated_at_a_image(root):
    file = root / 'stl10_binary' / 'train_X.bin'
    file.write_bytes(file.read_bytes()[: 27_648 * 5])
    with pytest.raises(ValueError, match=r'8 bytes.* 5 images'):
        unverified(root)


@pytest.mark.parametrize('value', [0, 11, 255])
def test_no_label(root, value):
    file = root / 'stl10_binary' / 'test_y.bin'
    file.write_bytes(bytes([10, value, 0]))
    with pytest.raises(ValueError, match=f'byte 1 is {value}, ') as caught:
        unverified(root, split='test')
    assert f'"{file}" is damaged' in str(caught.value)
    assert URL in str(caught.value)


@pytest.mark.parametrize('split', PARTS)
def test_missing_folder(tmp_path, split):
    folder = tmp_path / 'none'
    with pytest.raises(FileNotFoundError, match='no folder') as caught:
        STL10(str(folder), split=split)
    message = str(caught.value)
    assert f'"{folder}"' in message
    assert URL in message
    assert 'unpack it, and set data_root' in message
    # what it should hold is looked at later
    STL10(str(folder), split=split, lazy_init=True)


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    want = re.escape(str(tmp_path / 'data' / 'stl10'))
    with pytest.raises(FileNotFoundError, match=f'no folder "{want}"'):
        STL10()


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        (dict(split=split), name)
        for split, names in FILES.items()
        for name in names
    ]
    + [(dict(fold=0), 'fold_indices.txt')],
)
def test_missing_file(root, kwargs, name):
    file = root / 'stl10_binary' / name
    file.unlink()
    with pytest.raises(FileNotFoundError, match='no file') as caught:
        unverified(root, **kwargs)
    message = str(caught.value)
    assert f'"{file}"' in message
    assert URL in message
    assert 'unpack it, and set data_root' in message


@pytest.mark.parametrize('split', PARTS)
def test_files_that_are_not_needed(root, split):
    folder = root / 'stl10_binary'
    for file in list(folder.iterdir()):
        if file.name not in FILES[split]:
            file.unlink()
    assert len(unverified(root, split=split)) == len(everything(split))


@pytest.mark.parametrize('split', ['val', '', None, 'unlabeled+train'])
def test_bad_split(archive, split):
    want = re.escape(f"split='{split}' of STL10")
    with pytest.raises(ValueError, match=want) as caught:
        unverified(archive[0], split=split)
    message = str(caught.value)
    assert "'train', 'test', 'unlabeled' or 'train+unlabeled'" in message


@pytest.mark.parametrize('fold', [-1, 10, '3', True, 2.0, [0]])
def test_bad_fold(archive, fold):
    want = re.escape(f'fold={fold!r} of STL10: an integer from 0 to 9')
    with pytest.raises(ValueError, match=want):
        unverified(archive[0], fold=fold)


@pytest.mark.parametrize('split', ['test', 'unlabeled', 'train+unlabeled'])
def test_only_train_has_folds(archive, split):
    want = re.escape(f"split='{split}': only 'train' has folds")
    # 0 is a fold, too
    with pytest.raises(ValueError, match=f'fold=0 .*{want}'):
        unverified(archive[0], split=split, fold=0)
    dataset = unverified(archive[0], split=split)
    with pytest.raises(ValueError, match="no folds: ask one with split='tr"):
        dataset.folds()


GOOD = ['0 1'] * 9


@pytest.mark.parametrize(
    ('lines', 'want'),
    [
        (GOOD, '9 lines of 2 numbers'),
        ([*GOOD, '0 1', '1 2'], '11 lines of 2 numbers'),
        ([*GOOD, '0'], '10 lines of 1 or 2 numbers'),
        ([], '0 lines of no numbers'),
        ([*GOOD, '1 8'], 'fold 9 holds "8", .* from 0 to 7'),
        (['-1 2', *GOOD], 'fold 0 holds "-1"'),
        (['0 1', '1 2.5', *GOOD[:8]], 'fold 1 holds "2.5"'),
        ([*GOOD, '\x00 \x01'], 'fold 9 holds "\x00"'),
        ([*GOOD, 'ö 1'], 'fold 9 holds "ö"'),
    ],
)
def test_damaged_folds(root, lines, want):
    file = root / 'stl10_binary' / 'fold_indices.txt'
    file.write_text('\n'.join(lines), encoding='utf-8')
    # nobody asks for folds
    dataset = unverified(root)
    for attempt in (dataset.folds, lambda: unverified(root, fold=0)):
        with pytest.raises(ValueError, match=want) as caught:
            attempt()
        message = str(caught.value)
        assert f'"{file}" is damaged' in message
        assert 'again' in message
        assert URL in message


def test_folds_that_are_no_text(root):
    file = root / 'stl10_binary' / 'fold_indices.txt'
    file.write_bytes(b'\xff 1\n' * 10)
    with pytest.raises(ValueError, match='is damaged: fold 0 holds "\ufffd"'):
        unverified(root, fold=0)
