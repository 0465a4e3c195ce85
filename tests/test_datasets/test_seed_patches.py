import dataclasses
import json
import os
import pickle
import re

import cv2
import numpy as np
import pytest
from helpers import Harmful

from mm_rotssl.datasets import SeedPatches
from mm_rotssl.datasets.exemplar.seed_patches import cut_window, scaled_image
from mm_rotssl.utils import fingerprint

NAMES = ['a b/1.jpg', 'ä/öhr ß.png', '日本/写真.png']


def make(**changes):
    """Five seed patches of patches of 32 pixels in three images."""
    arrays = dict(
        keys=list(NAMES),
        sizes=np.array([[96, 80], [40, 50], [33, 64]], np.int32),
        images=np.array([1, 0, 0, 2, 0], np.int64),
        centers=np.array(
            [[20, 30], [16, 16], [80, 64], [16.5, 40.25], [50, 40]],
            np.float32,
        ),
        scales=np.array([1, 1, 1, 1, 0.64], np.float32),
        patch_size=32,
        made_by=dict(scales=[1.0, 0.64], energy='ü', nested=dict(a=None)),
    )
    return SeedPatches(**{**arrays, **changes})


def written(path, **changes):
    """Write the arrays of a file with some of them replaced or left out."""
    make().save(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {**file, **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def same(one, other):
    for field in dataclasses.fields(SeedPatches):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(mine, theirs, field.name)
        else:
            assert mine == theirs, field.name
    return True


def test_round_trip(tmp_path):
    seed_patches = make()
    seed_patches.save(tmp_path / 'new' / 'a.npz')
    assert [path.name for path in tmp_path.rglob('*.*')] == ['a.npz']
    assert same(SeedPatches.load(tmp_path / 'new' / 'a.npz'), seed_patches)
    assert same(
        SeedPatches.load(str(tmp_path / 'new' / 'a.npz')), seed_patches
    )
    assert len(seed_patches) == 5
    # other types on the way in, the same in the file
    wide = make(
        sizes=seed_patches.sizes.astype(np.int64),
        centers=seed_patches.centers.astype(np.float64),
        scales=seed_patches.scales.astype(np.float64),
    )
    wide.save(tmp_path / 'b.npz')
    assert same(SeedPatches.load(tmp_path / 'b.npz'), seed_patches)


def test_names(tmp_path):
    seed_patches = make()
    seed_patches.save(tmp_path / 'a.npz')
    names = seed_patches.names
    assert len(set(names)) == 5
    assert NAMES[2] in names[3]
    assert SeedPatches.load(tmp_path / 'a.npz').names == names
    # notes make no other seed patches
    assert make(made_by={}).names == names
    # types of another precision don't either
    wide = {
        name: getattr(seed_patches, name).astype(np.float64)
        for name in ('centers', 'scales')
    }
    assert make(**wide).names == names
    # whatever moves or renames one does
    nearest = np.nextafter(seed_patches.centers, np.float32(99))
    others = [
        make(keys=[NAMES[0], NAMES[2], NAMES[1]]),
        make(sizes=seed_patches.sizes + 1),
        make(images=np.array([0, 1, 0, 2, 0])),
        make(centers=nearest),
        make(centers=seed_patches.centers[::-1]),
        make(scales=np.nextafter(seed_patches.scales, np.float32(0))),
        make(patch_size=31),
    ]
    found = {fingerprint(other.names) for other in (seed_patches, *others)}
    assert len(found) == 1 + len(others)


def test_files_written_before_0_1(tmp_path):
    """They call the array otherwise."""
    path = tmp_path / 'a.npz'
    written(path, images=None, pictures=make().images)
    assert same(SeedPatches.load(path), make())
    # and it is checked like any other
    written(path, images=None, pictures=make().images + 1)
    with pytest.raises(ValueError, match='in image 3 of 3'):
        SeedPatches.load(path)


def test_what_the_file_holds(tmp_path):
    make().save(tmp_path / 'a.npz')
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as file:
        arrays = dict(file)
    assert {name: (a.dtype, a.shape) for name, a in arrays.items()} == {
        # one byte a letter of plain names
        'keys': (np.dtype(f'S{max(len(k.encode()) for k in NAMES)}'), (3,)),
        'sizes': (np.int32, (3, 2)),
        'images': (np.int64, (5,)),
        'centers': (np.float32, (5, 2)),
        'scales': (np.float32, (5,)),
        'patch_size': (np.int64, ()),
        'made_by': (arrays['made_by'].dtype, ()),
    }
    assert arrays['made_by'].dtype.kind == 'U'
    assert json.loads(str(arrays['made_by'])) == make().made_by
    assert [key.decode() for key in arrays['keys'].tolist()] == NAMES


def test_names_that_are_no_unicode(tmp_path):
    # so Python shows a file whose name was written in Latin-1
    name = os.fsdecode('öhr.png'.encode('latin-1'))
    seed_patches = make(keys=[name, *NAMES[1:]])
    seed_patches.save(tmp_path / 'a.npz')
    assert same(SeedPatches.load(tmp_path / 'a.npz'), seed_patches)


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.npz'
    make().save(path)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', stopped)
        with pytest.raises(KeyboardInterrupt):
            make(keys=['x', 'y', 'z']).save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert same(SeedPatches.load(path), make())


@pytest.mark.parametrize('name', ['keys', 'made_by', 'centers'])
def test_code_in_a_file_is_not_run(tmp_path, name):
    path, trace = tmp_path / 'a.npz', tmp_path / 'trace'
    written(path, **{name: np.array([Harmful(trace)], object)})
    with pytest.raises(ValueError, match=re.escape(f'"{path}" is no file of')):
        SeedPatches.load(path)
    path.write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.raises(ValueError, match=re.escape(f'"{path}" is no file of')):
        SeedPatches.load(path)
    assert not trace.exists()


def test_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('b.npz', tmp_path / 'b.npz', tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            SeedPatches.load(path)
        message = str(error.value)
        assert f'"{path}"' in message
        assert f'"{tmp_path}"' in message
        assert 'mm-rotssl sample-patches' in message
        assert 'seed_patches=dict(num_exemplars=...)' in message


def test_truncated_and_other_files(tmp_path):
    path = tmp_path / 'a.npz'
    make().save(path)
    content = path.read_bytes()
    image = cv2.imencode('.png', np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    np.save(tmp_path / 'b.npy', np.zeros((5, 2)))
    others = [
        *(content[:n] for n in range(0, len(content), 7)),
        image,
        b'text',
        (tmp_path / 'b.npy').read_bytes(),
    ]
    np.savez(tmp_path / 'b.npz', features=np.zeros((5, 2)))
    others.append((tmp_path / 'b.npz').read_bytes())
    for other in others:
        path.write_bytes(other)
        with pytest.raises(
            ValueError, match='Exemplar-CNN seed patches'
        ) as error:
            SeedPatches.load(path)
        assert f'"{path}"' in str(error.value)
        assert 'mm-rotssl sample-patches' in str(error.value)


def test_a_changed_byte_is_harmless_or_found(tmp_path):
    path = tmp_path / 'a.npz'
    make().save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    found = 0
    for place in rng.permutation(len(content))[:300].tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            seed_patches = SeedPatches.load(path)
        except ValueError as error:
            assert f'"{path}"' in str(error)  # noqa: PT017
            found += 1
        else:
            # such as the time at which it was written
            assert same(seed_patches, make())
    assert found > 100


@pytest.mark.parametrize(
    'name', [field.name for field in dataclasses.fields(SeedPatches)]
)
def test_missing_array(tmp_path, name):
    path = written(tmp_path / 'a.npz', **{name: None})
    with pytest.raises(ValueError, match=name) as error:
        SeedPatches.load(path)
    assert f'"{path}"' in str(error.value)


FULL = make()


@pytest.mark.parametrize(
    ('changes', 'say'),
    [
        (dict(sizes=FULL.sizes[:2]), r'sizes has the shape \(2, 2\)'),
        (dict(sizes=FULL.sizes.ravel()), r'sizes has the shape \(6,\)'),
        (dict(centers=FULL.centers[:4]), r'centers has the shape \(4, 2\)'),
        (dict(centers=FULL.centers[:, :1]), r'the shape \(5, 1\).*\(5, 2\)'),
        (dict(scales=FULL.scales[:, None]), r'scales has the shape \(5, 1\)'),
        (dict(scales=np.float32(1)), r'scales has the shape \(\)'),
        (dict(images=FULL.images[None]), r'\(1, 5\)'),
        (dict(images=FULL.images[:4]), 'and 4 seed patches'),
        (dict(keys=np.array([b'a', b'b'])), '2 images and 5 seed patches'),
        (dict(keys=np.array([1, 2, 3])), None),
        (dict(images=FULL.images.astype(np.float64)), 'int64'),
        (dict(sizes=FULL.sizes + 0.5), 'int32'),
        (dict(centers=FULL.centers.astype('U9')), 'float32'),
        (dict(centers=FULL.centers.astype(np.complex64)), 'float32'),
        (dict(patch_size=np.array([32, 32])), None),
        (dict(patch_size=np.array('a')), None),
        (dict(patch_size=np.array(0)), 'patch_size=0'),
        (dict(patch_size=np.array(-32)), 'patch_size=-32'),
        (dict(made_by=np.array('{')), None),
        (dict(keys=np.array([b'a', b'b', b'a'])), 'more than once'),
        (dict(images=FULL.images + 1), 'image 3 of 3'),
        (dict(images=FULL.images - 1), 'image -1 of 3'),
        (
            dict(
                images=np.zeros(0, np.int64),
                centers=np.zeros((0, 2), np.float32),
                scales=np.zeros(0, np.float32),
            ),
            'no seed',
        ),
    ],
)
def test_damaged_arrays(tmp_path, changes, say):
    path = written(tmp_path / 'a.npz', **changes)
    with pytest.raises(ValueError, match=say) as error:
        SeedPatches.load(path)
    assert f'"{path}" is no file of' in str(error.value)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ('name', 'index', 'value'),
    [
        # Patch 2 touches the right and the lower border of 96x80 pixels,
        # patch 1 the left and the upper one; rounding may take a pixel.
        ('centers', (2, 0), 81.1),
        ('centers', (2, 1), 65.1),
        ('centers', (1, 0), 14.9),
        ('centers', (1, 1), 14.9),
        ('centers', (2, 0), -80),
        ('centers', (0, 1), np.nan),
        ('centers', (0, 0), np.inf),
        ('scales', 2, 0.9),
        ('scales', 1, 0),
        ('scales', 4, -0.64),
        ('scales', 3, np.nan),
        ('scales', 4, np.inf),
        ('sizes', (0, 1), 78),
        ('sizes', (0, 0), 0),
        ('sizes', (1, 1), -50),
    ],
)
def test_patches_that_are_not_in_their_image(tmp_path, name, index, value):
    seed_patches = make(**{name: changed(getattr(FULL, name), index, value)})
    seed_patches.save(tmp_path / 'a.npz')
    with pytest.raises(ValueError, match='out of their image') as error:
        SeedPatches.load(tmp_path / 'a.npz')
    message = str(error.value)
    assert str(tmp_path / 'a.npz') in message
    # which of them: all that are in the image whose size is wrong
    number = index[0] if isinstance(index, tuple) else index
    wrong = [number]
    if name == 'sizes':
        # at 78 pixels only the lowest one
        wrong = (
            [2]
            if value == 78
            else list(np.flatnonzero(seed_patches.images == number))
        )
    assert message.startswith(f'{len(wrong)} patches')
    assert re.findall(r'seed patch (\d+)', message) == [str(i) for i in wrong]
    for i in wrong:
        key = seed_patches.keys[seed_patches.images[i]]
        width, height = seed_patches.sizes[seed_patches.images[i]]
        assert f'{key} of [{width}, {height}] pixels' in message


def test_only_some_of_many_wrong_patches_are_named(tmp_path):
    seed_patches = SeedPatches(
        ['a'],
        np.array([[40, 40]]),
        np.zeros(30, np.int64),
        np.repeat([[20, 20], [20, 2000]], 15, 0),
        np.ones(30),
        32,
    )
    seed_patches.save(tmp_path / 'a.npz')
    with pytest.raises(ValueError, match='15 patches') as error:
        SeedPatches.load(tmp_path / 'a.npz')
    assert re.findall(r'seed patch (\d+)', str(error.value)) == [
        *('15', '16', '17', '18', '19')
    ]


def test_patches_at_the_border_are_taken(tmp_path):
    # 33 pixels at scale 0.8 are 26, which show all of 32.5 pixels
    seed_patches = SeedPatches(
        ['a', 'b'],
        np.array([[33, 33], [32, 32]]),
        np.array([0, 0, 0, 1, 1]),
        np.array([[16.25] * 2, [16.75] * 2, [16.5] * 2, [16, 16], [16, 17]]),
        np.array([0.8, 0.8, 0.8, 0.8125, 0.8125]),
        26,
    )
    seed_patches.save(tmp_path / 'a.npz')
    SeedPatches.load(tmp_path / 'a.npz')


def area_mean(image, width, height):
    """Shrink: the mean over the area of each new pixel, in float64."""

    def weights(old, new):
        # how much of each old pixel lies in each new one
        edges = np.arange(new + 1) * old / new
        pixels = np.arange(old)
        shares = np.minimum(edges[1:, None], pixels + 1)
        shares = shares - np.maximum(edges[:-1, None], pixels)
        return np.maximum(shares, 0) * new / old

    rows = weights(image.shape[0], height)
    columns = weights(image.shape[1], width)
    return np.einsum('yh,xw,hwc->yxc', rows, columns, image)


@pytest.mark.parametrize(
    ('shape', 'scale', 'expected'),
    [
        ((96, 96), 0.8, (77, 77)),
        ((96, 64), 0.64, (61, 41)),
        ((80, 60), 0.5, (40, 30)),
        ((45, 47), 0.512, (23, 24)),
        ((31, 200), 0.1, (3, 20)),
        ((3, 1), 0.3, (1, 1)),
        ((20, 1), 0.2, (4, 1)),
        ((9, 9), 0.95, (9, 9)),
    ],
)
def test_scaled_images_are_means_over_areas(shape, scale, expected):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    scaled = scaled_image(image, scale)
    assert scaled.dtype == np.uint8
    assert scaled.shape == (*expected, 3)
    mean = area_mean(image, expected[1], expected[0])
    # rounded to whole numbers, of float32 sums
    assert abs(scaled - mean).max() < 0.501


def test_scale_1_leaves_the_image():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    np.testing.assert_array_equal(scaled_image(image, 1), image)
    np.testing.assert_array_equal(scaled_image(image, 1.0), image)


def reference_window(image, start, size):
    """Pixel by pixel; outside the nearest one, and where that was."""
    height, width = image.shape[:2]
    window = np.empty((size, size, 3), np.uint8)
    inside = np.zeros((size, size), bool)
    for v in range(size):
        for u in range(size):
            x, y = start[0] + u, start[1] + v
            inside[v, u] = 0 <= x < width and 0 <= y < height
            window[v, u] = image[
                min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            ]
    return window, inside


def check_window(scaled, center, patch, size, window, valid):
    """Compare with the reference; ``center`` in pixels of ``scaled``."""
    starts = []
    for middle, length in zip(center, scaled.shape[1::-1], strict=True):
        # nearest whole pixel at which the patch is within
        places = range(length - patch + 1)
        starts.append(min(places, key=lambda x: abs(x + patch / 2 - middle)))
    # on both sides of the patch as much
    before = (size - patch) // 2
    expected, inside = reference_window(
        scaled, [start - before for start in starts], size
    )
    assert window.dtype == np.uint8
    np.testing.assert_array_equal(window, expected)
    left, top, right, bottom = valid
    mask = np.zeros_like(inside)
    mask[top:bottom, left:right] = True
    np.testing.assert_array_equal(mask, inside)
    if size >= patch:
        # the patch itself is of the image
        assert max(left, top) <= before
        assert min(right, bottom) >= before + patch


@pytest.mark.parametrize('scale', [1, 0.8, 0.512])
@pytest.mark.parametrize(
    ('patch', 'size'), [(8, 8), (8, 24), (7, 15), (6, 5), (8, 13), (1, 9)]
)
def test_windows_are_cut_out_of_the_scaled_image(scale, patch, size):
    rng = np.random.default_rng(patch * size)
    image = rng.integers(0, 256, (30, 43, 3), np.uint8)
    scaled = image
    if scale != 1:
        shape = round(43 * scale), round(30 * scale)
        scaled = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    height, width = scaled.shape[:2]
    lengths = np.array([43, 30])
    reach = patch / 2 / scale
    centers = [
        *rng.uniform(reach, lengths - reach, (12, 2)),
        # the corners
        (reach, reach),
        lengths - reach,
        (reach, 30 - reach),
        # as far out as a file of seed patches may have it
        (reach - 1 / scale, 30 - reach + 1 / scale),
    ]
    for center in centers:
        center = np.asarray(center, np.float32)
        window, valid = cut_window(
            image, center, np.float32(scale), patch, size
        )
        middle = center.astype(float) * (width, height) / lengths
        check_window(scaled, middle, patch, size, window, valid)


def test_patches_at_scale_1_are_copied():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (70, 50, 3), np.uint8)
    for x, y in [(0, 0), (5, 31), (18, 38), (3, 2)]:
        center = np.array([x + 16, y + 16], np.float32)
        patch, valid = cut_window(image, center, 1, 32, 32)
        np.testing.assert_array_equal(patch, image[y : y + 32, x : x + 32])
        assert valid == (0, 0, 32, 32)
        window, valid = cut_window(image, center, 1, 32, 60)
        np.testing.assert_array_equal(window[14:46, 14:46], patch)
        assert valid == (
            max(0, 14 - x),
            max(0, 14 - y),
            min(60, 14 - x + 50),
            min(60, 14 - y + 70),
        )
    # it is no view of the image
    window[:] = 0
    assert image.max() > 200


def test_a_image_as_large_as_the_patch():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (16, 16, 3), np.uint8)
    window, valid = cut_window(image, np.array([8, 8]), 1, 16, 32)
    assert valid == (8, 8, 24, 24)
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), 'edge')
    np.testing.assert_array_equal(window, padded)


def test_every_patch_that_a_file_may_hold_can_be_cut(tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / 'a.npz'
    for _ in range(60):
        patch = int(rng.integers(1, 40))
        scale = rng.choice([1, rng.uniform(0.2, 1)])
        # the smallest images in which it fits, and larger ones
        low = next(n for n in range(999) if round(n * scale) >= patch)
        width, height = (low + rng.integers(0, 30, 2)).tolist()
        reach, size = patch / 2 / scale, np.array([width, height])
        low_end, high_end = reach - 0.99 / scale, size - reach + 0.99 / scale
        places = rng.choice([0, 1, *rng.random(3)], (20, 2))
        centers = np.minimum(low_end, high_end) + places * abs(
            high_end - low_end
        )
        seed_patches = SeedPatches(
            ['a'],
            size[None],
            np.zeros(20, np.int64),
            centers,
            np.full(20, scale),
            patch,
        )
        seed_patches.save(path)
        seed_patches = SeedPatches.load(path)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        scaled = scaled_image(image, scale)
        ratio = np.array(scaled.shape[1::-1]) / size
        for center, own in zip(
            seed_patches.centers, seed_patches.scales, strict=True
        ):
            window, valid = cut_window(image, center, own, patch, patch)
            assert valid == (0, 0, patch, patch)
            check_window(
                scaled,
                center.astype(float) * ratio,
                patch,
                patch,
                window,
                valid,
            )
