import re
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mm_rotssl.datasets import (
    Digits,
    ExemplarDataset,
    ImageFolder,
    SeedPatches,
    sample_seed_patches,
)
from mm_rotssl.datasets.transforms import RandomDeformation
from mm_rotssl.utils import fingerprint

NAMES = ['a/1.png', 'a/2.png', 'b/ü 1.png', 'b/2.png']
SIZES = [(40, 40), (64, 48), (35, 50), (80, 40)]
PATCH = 16


def pixels(number):
    width, height = SIZES[number]
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


class Images(BaseDataset):
    """Images in memory, that notes which were read."""

    def __init__(self, order=range(4), gray=False, **kwargs):
        self.order = list(order)
        self.gray = gray
        self.read = Counter()
        super().__init__(
            data_prefix=dict(img_path='root/'),
            pipeline=[self.note],
            serialize_data=False,
            **kwargs,
        )

    def load_data_list(self):
        return [
            dict(
                img=pixels(i)[..., 0] if self.gray else pixels(i),
                img_path=NAMES[i],
            )
            for i in self.order
        ]

    def parse_data_info(self, info):
        return info

    def note(self, results):
        self.read[results['img_path'].removeprefix('root/')] += 1
        return results


def make_seeds(**changes):
    """Seed patches in no order; the second image of the dataset has none."""
    arrays = dict(
        keys=[NAMES[3], NAMES[0], NAMES[2]],
        sizes=np.array([SIZES[3], SIZES[0], SIZES[2]], np.int32),
        images=np.array([2, 0, 1, 0, 2, 0], np.int64),
        centers=np.array(
            [[12, 40], [10, 30], [20, 20], [40, 20], [21, 14], [70, 9]],
            np.float32,
        ),
        scales=np.array([1, 1, 1, 0.8, 0.64, 1], np.float32),
        patch_size=PATCH,
    )
    return SeedPatches(**{**arrays, **changes})


def of_folder(folder):
    return ImageFolder(
        str(folder), pipeline=[dict(type='mm_rotssl.LoadIntactImage')]
    )


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(NAMES):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', pixels(i))[1].tobytes())
    return tmp_path / 'images'


def expected_window(seed_patches, label, size):
    """Cut out of the image with its edge repeated."""
    key = seed_patches.keys[seed_patches.images[label]]
    image = pixels(NAMES.index(key))
    full = np.array(image.shape[1::-1])
    scale = float(seed_patches.scales[label])
    if scale != 1:
        small = [round(side * scale) for side in full.tolist()]
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    now = np.array(image.shape[1::-1])
    start = seed_patches.centers[label] * now / full - PATCH / 2
    assert (abs(start % 1 - 0.5) > 1e-4).all(), 'not clear where it begins'
    x, y = np.floor(start + 0.5).astype(int) - (size - PATCH) // 2
    columns = np.arange(x, x + size)
    rows = np.arange(y, y + size)
    window = image[
        np.clip(rows, 0, now[1] - 1)[:, None], np.clip(columns, 0, now[0] - 1)
    ]
    inside = [
        np.flatnonzero((places >= 0) & (places < length))
        for places, length in ((columns, now[0]), (rows, now[1]))
    ]
    valid = (
        *(int(places[0]) for places in inside),
        *(int(places[-1]) + 1 for places in inside),
    )
    return window, valid


@pytest.mark.parametrize('order', [(0, 1, 2, 3), (2, 3, 0, 1)])
def test_entries(order):
    seed_patches = make_seeds()
    deformation = RandomDeformation(patch_size=PATCH, on_device=True)
    size = deformation.window_size
    assert size > PATCH
    images = Images(order)
    data = ExemplarDataset(images, seed_patches, [deformation], 3)
    assert len(data) == 18
    assert data.metainfo == dict(
        num_exemplars=6, fingerprint=fingerprint(seed_patches.names)
    )
    for idx in range(18):
        entry = data.get_data_info(idx)
        # not the number of the image
        label = idx // 3
        window, valid = expected_window(seed_patches, label, size)
        np.testing.assert_array_equal(entry.pop('img'), window)
        assert entry == dict(
            img_shape=(size, size),
            valid=valid,
            exemplar_label=label,
            sample_idx=idx,
            img_path=seed_patches.keys[seed_patches.images[label]],
        )
    # without a deformation, the patches themselves
    data = ExemplarDataset(images, seed_patches, [], 1)
    for label in range(6):
        patch, valid = expected_window(seed_patches, label, PATCH)
        assert valid == (0, 0, PATCH, PATCH)
        np.testing.assert_array_equal(data[label]['img'], patch)


def test_numbers_of_entries():
    data = ExemplarDataset(Images(), make_seeds(), [], 2)
    for idx in (-1, 12, 99):
        with pytest.raises(IndexError, match=f'{idx} of 12'):
            data[idx]
    entry = data[np.int64(7)]
    assert type(entry['exemplar_label']) is int
    assert (entry['exemplar_label'], entry['sample_idx']) == (3, 7)
    # the default of the authors' code
    assert len(ExemplarDataset(Images(), make_seeds(), [])) == 6 * 150


def test_largest_window_of_the_pipeline():
    small = RandomDeformation(patch_size=PATCH, rotation=0, translation=0)
    large = RandomDeformation(patch_size=PATCH)
    assert small.window_size < large.window_size
    for pipeline in ([small, large], [large, small]):
        data = ExemplarDataset(Images(), make_seeds(), pipeline)
        assert data.window_size == large.window_size
        assert data.windows.shape == (6, *[large.window_size] * 2, 3)


def test_each_image_is_read_once_and_when_first_used():
    images = Images(lazy_init=True)
    data = ExemplarDataset(images, make_seeds(), [], 2, lazy_init=True)
    assert len(data) == 12
    assert data.metainfo['num_exemplars'] == 6
    assert not images.read
    first = data[4]
    assert images.read == {NAMES[i]: 1 for i in (0, 2, 3)}
    for _ in range(2):
        data.full_init()
        for i in range(12):
            _ = data[i]
    assert images.read == {NAMES[i]: 1 for i in (0, 2, 3)}
    eager = ExemplarDataset(images, make_seeds(), [], 2)
    assert images.read == {NAMES[i]: 2 for i in (0, 2, 3)}
    np.testing.assert_array_equal(first['img'], eager[4]['img'])


def test_windows_stay_as_they_are():
    def spoil(results):
        results['img'][:] = 0
        results['valid'] = None
        return results

    data = ExemplarDataset(Images(), make_seeds(), [spoil], 2)
    before = data.get_data_info(5)['img']
    assert not data[5]['img'].any()
    np.testing.assert_array_equal(data.get_data_info(5)['img'], before)
    assert before.any()
    assert data.get_data_info(5)['valid'] == (0, 0, PATCH, PATCH)


def test_gray_images():
    data = ExemplarDataset(Images(gray=True), make_seeds(), [], 1)
    for label in (0, 1, 2, 5):
        patch, _ = expected_window(make_seeds(), label, PATCH)
        patch = np.repeat(patch[..., :1], 3, 2)
        np.testing.assert_array_equal(data[label]['img'], patch)


def deformation(**kwargs):
    return dict(type='mm_rotssl.RandomDeformation', patch_size=PATCH, **kwargs)


def stored(seed_patches, number, random_seed):
    """All patches, made one by one beforehand, as the paper's authors did."""
    transform = RandomDeformation(patch_size=PATCH)
    patches = []
    for label in range(len(seed_patches)):
        window, valid = expected_window(
            seed_patches, label, transform.window_size
        )
        for k in range(number):
            results = dict(
                img=window.copy(),
                valid=valid,
                deformation_seed=(random_seed, label, k),
            )
            patches.append(transform(results)['img'])
    return np.stack(patches)


def as_is(entries):
    return entries


def fixed():
    return ExemplarDataset(
        Images(),
        make_seeds(),
        [deformation()],
        4,
        fixed_deformations=True,
        random_seed=7,
    )


def test_fixed_deformations_are_those_of_a_stored_set():
    expected = stored(make_seeds(), 4, 7)
    data = fixed()
    order = np.random.default_rng(0).permutation(24)
    for epoch in range(2):
        np.random.seed(epoch)
        torch.manual_seed(epoch)
        for idx in order[:: 1 - 2 * epoch].tolist():
            np.testing.assert_array_equal(data[idx]['img'], expected[idx])
    # they leave the global state alone
    np.random.seed(3)
    _ = data[5]
    drawn = np.random.random()
    np.random.seed(3)
    assert np.random.random() == drawn


@pytest.mark.parametrize('workers', [0, 2])
def test_fixed_deformations_in_a_dataloader(workers):
    expected = stored(make_seeds(), 4, 7)
    loader = DataLoader(
        fixed(),
        5,
        shuffle=True,
        num_workers=workers,
        collate_fn=as_is,
        multiprocessing_context='fork' if workers else None,
        generator=torch.Generator().manual_seed(0),
    )
    orders = []
    for _ in range(2):
        entries = [entry for batch in loader for entry in batch]
        orders.append([entry['sample_idx'] for entry in entries])
        assert sorted(orders[-1]) == list(range(24))
        for entry in entries:
            idx = entry['sample_idx']
            assert entry['exemplar_label'] == idx // 4
            np.testing.assert_array_equal(entry['img'], expected[idx])
    assert orders[0] != orders[1]


def test_fixed_deformations_differ():
    def numbers(data):
        return np.stack([entry['deformation'] for entry in data])

    # in any of its numbers
    def distinct(rows):
        return all(
            len(np.unique(column)) == len(column)
            for column in np.asarray(rows).T
        )

    # of images with room for any of them
    seed_patches = SeedPatches(
        [f'{i}' for i in range(3)],
        np.full((3, 2), 90),
        np.arange(3),
        np.full((3, 2), 45.0),
        np.ones(3),
        PATCH,
    )
    images = BaseDataset(lazy_init=True, serialize_data=False, pipeline=[])
    images.load_data_list = lambda: [
        dict(img=np.zeros((90, 90, 3), np.uint8), img_path=key)
        for key in seed_patches.keys
    ]

    def make(random_seed, number=5):
        return ExemplarDataset(
            images,
            seed_patches,
            [deformation(on_device=True)],
            number,
            fixed_deformations=True,
            random_seed=random_seed,
        )

    found = [numbers(make(random_seed)) for random_seed in (0, 1)]
    # between deformations, seed patches and random seed patches; sine and
    # cosine of the angle, with the scale, give four numbers
    together = np.concatenate(found)
    assert together.shape == (30, 16)
    changing = [0, 1, 2, 5, *range(6, 16)]
    assert distinct(together[:, changing])
    np.testing.assert_array_equal(found[0], numbers(make(0)))
    # more of them begin with the same
    more = numbers(make(0, 8)).reshape(3, 8, 16)[:, :5]
    np.testing.assert_array_equal(more.reshape(15, 16), found[0])


def test_deformations_that_are_not_fixed():
    data = ExemplarDataset(
        Images(), make_seeds(), [deformation(on_device=True)], 2
    )

    def epoch():
        return np.stack([data[i]['deformation'] for i in range(12)])

    np.random.seed(5)
    first, second = epoch(), epoch()
    np.random.seed(5)
    np.testing.assert_array_equal(epoch(), first)
    np.testing.assert_array_equal(epoch(), second)
    # colors, which always change
    assert not np.isclose(first[:, 6:], second[:, 6:]).any()
    np.random.seed(6)
    assert not np.isclose(epoch()[:, 6:], first[:, 6:]).any()
    assert 'deformation_seed' not in data.get_data_info(0)


def test_seeds_as_settings_file_or_object(folder, tmp_path):
    settings = dict(num_exemplars=5, patch_size=PATCH, max_per_image=3)
    seed_patches = sample_seed_patches(of_folder(folder), **settings)
    seed_patches.save(tmp_path / 'seeds.npz')
    images = {name: pixels(i) for i, name in enumerate(NAMES)}
    windows = []
    for given in (
        settings,
        str(tmp_path / 'seeds.npz'),
        tmp_path / 'seeds.npz',
        seed_patches,
    ):
        data = ExemplarDataset(
            dict(
                type='mm_rotssl.ImageFolder',
                data_root=str(folder),
                pipeline=[dict(type='mm_rotssl.LoadIntactImage')],
            ),
            given,
            [],
            1,
        )
        assert data.metainfo['num_exemplars'] == 5
        windows.append(data.windows)
        np.testing.assert_array_equal(windows[0], windows[-1])
    for label, scale in enumerate(seed_patches.scales):
        if scale == 1:
            x, y = (
                (seed_patches.centers[label] - PATCH / 2).round().astype(int)
            )
            image = images[seed_patches.keys[seed_patches.images[label]]]
            np.testing.assert_array_equal(
                windows[0][label], image[y : y + PATCH, x : x + PATCH]
            )


def test_missing_file_of_seeds(tmp_path):
    with pytest.raises(FileNotFoundError, match='mm-rotssl sample-patches'):
        ExemplarDataset(Images(), str(tmp_path / 'none.npz'), [])


def test_images_that_are_not_there(folder, tmp_path):
    make_seeds().save(tmp_path / 'seeds.npz')
    data = ExemplarDataset(of_folder(folder), tmp_path / 'seeds.npz', [], 1)
    # the folder may have been moved, and may have got more
    moved = folder.rename(tmp_path / 'moved')
    (moved / 'a/0.png').write_bytes((moved / NAMES[1]).read_bytes())
    again = ExemplarDataset(of_folder(moved), tmp_path / 'seeds.npz', [], 1)
    np.testing.assert_array_equal(data.windows, again.windows)
    (moved / NAMES[2]).rename(moved / 'b/other.png')
    (moved / NAMES[0]).unlink()
    with pytest.raises(ValueError, match='2 of the 3 images') as error:
        ExemplarDataset(of_folder(moved), tmp_path / 'seeds.npz', [])
    message = str(error.value)
    assert f'"{tmp_path / "seeds.npz"}"' in message
    assert f'such as {NAMES[0]}, {NAMES[2]}. ' in message
    # what is there tells a wrong data_root
    assert 'a/0.png, a/2.png' in message
    assert 'data_root' in message
    assert 'sample them anew' in message
    # the folder above
    with pytest.raises(ValueError, match='3 of the 3') as error:
        ExemplarDataset(of_folder(tmp_path), tmp_path / 'seeds.npz', [])
    assert 'moved/a/0.png' in str(error.value)


def test_images_that_changed_their_size(folder, tmp_path):
    make_seeds().save(tmp_path / 'seeds.npz')
    # a pixel more, and rotated
    for name, image in (
        (NAMES[2], np.zeros((50, 36, 3), np.uint8)),
        (NAMES[3], np.zeros((80, 40, 3), np.uint8)),
    ):
        old = (folder / name).read_bytes()
        content = cv2.imencode('.png', image)[1].tobytes()
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(name)) as error:
            ExemplarDataset(of_folder(folder), tmp_path / 'seeds.npz', [])
        message = str(error.value)
        height, width = image.shape[:2]
        was = SIZES[NAMES.index(name)]
        assert f'is {width}x{height} pixels now' in message
        assert f'was {was[0]}x{was[1]} ' in message
        assert f'"{tmp_path / "seeds.npz"}"' in message
        assert 'sample them anew' in message
        (folder / name).write_bytes(old)


def test_patches_of_another_size(tmp_path):
    make_seeds().save(tmp_path / 'seeds.npz')
    other = dict(type='mm_rotssl.RandomDeformation', patch_size=32)
    with pytest.raises(ValueError, match='patch_size=32') as error:
        ExemplarDataset(Images(), tmp_path / 'seeds.npz', [other])
    message = str(error.value)
    assert 'RandomDeformation' in message
    assert f'"{tmp_path / "seeds.npz"}" are for 16' in message
    with pytest.raises(ValueError, match='the seed patches are for 16'):
        ExemplarDataset(Images(), make_seeds(), [deformation(), other])
    # before images are read
    images = Images()
    with pytest.raises(ValueError, match='32'):
        ExemplarDataset(images, make_seeds(), [other])
    assert not images.read


@pytest.mark.parametrize('number', [0, -1])
def test_number_of_deformations(number):
    with pytest.raises(ValueError, match=f'num_deformations={number} '):
        ExemplarDataset(Images(), make_seeds(), [], number)


SETTINGS = dict(
    type='mm_rotssl.ExemplarDataset',
    dataset=dict(type='mm_rotssl.Digits', size=48, indices=30),
    seed_patches=dict(num_exemplars=12, scales=(1.0,)),
    num_deformations=3,
    pipeline=[
        dict(
            type='mm_rotssl.RandomDeformation', recolor=False, on_device=True
        ),
        dict(
            type='PackInputs',
            algorithm_keys=('exemplar_label', 'deformation'),
        ),
    ],
)


@pytest.mark.parametrize('pack', ['PackInputs', 'mm_rotssl.PackInputs'])
def test_with_the_engine(pack):
    init_default_scope('mmpretrain')
    settings = dict(SETTINGS)
    settings['pipeline'] = [
        SETTINGS['pipeline'][0],
        dict(SETTINGS['pipeline'][1], type=pack),
    ]
    loader = Runner.build_dataloader(
        dict(
            dataset=settings,
            batch_size=8,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        seed=1,
    )
    assert loader.dataset.metainfo['num_exemplars'] == 12
    seed_patches = sample_seed_patches(
        Digits(size=48, indices=30), **SETTINGS['seed_patches']
    )
    side = RandomDeformation(recolor=False).window_size
    # patches of 32 of 48 pixels, with what is around them
    whole = Digits(size=48, indices=30)
    images = {
        info['img_path']: info['img']
        for info in map(whole.get_data_info, range(30))
    }
    seen = Counter()
    for batch in loader:
        inputs = batch['inputs']
        assert inputs.dtype == torch.uint8
        assert inputs.shape[1:] == (3, side, side)
        for image, sample in zip(inputs, batch['data_samples'], strict=True):
            label = sample.exemplar_label
            seen[label] += 1
            assert label == sample.sample_idx // 3
            assert sample.deformation.shape == (6,)
            assert sample.deformation.dtype == np.float32
            key = seed_patches.keys[seed_patches.images[label]]
            assert sample.img_path == key
            x, y = (seed_patches.centers[label] - 16).astype(int)
            middle = (side - 32) // 2
            patch = image[:, middle : middle + 32, middle : middle + 32]
            np.testing.assert_array_equal(
                patch.permute(1, 2, 0),
                images[key][y : y + 32, x : x + 32],
            )
            # it stays within the part that is of the image
            cos, sin, middle_x, _, _, middle_y = sample.deformation.tolist()
            reach = (abs(cos) + abs(sin)) / 2
            left, top = side / 2 - 16 - x, side / 2 - 16 - y
            assert middle_x - reach >= max(left, 0)
            assert middle_x + reach <= min(left + 48, side)
            assert middle_y - reach >= max(top, 0)
            assert middle_y + reach <= min(top + 48, side)
    assert seen == dict.fromkeys(range(12), 3)
