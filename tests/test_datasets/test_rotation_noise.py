import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mm_rotssl.datasets import RotationNoise
from mm_rotssl.datasets.transforms import LoadRotationNoise
from mm_rotssl.ops import noise_weights, upright_index

ROTATIONS = (0, 90, 180, 270)
# letters outside of ASCII, blanks, and one name that begins like another
KEYS = ['katze/öhr 1.jpg', 'katze/öhr 1.jpg.png', '图片/五.png', 'a', 'ё']


def random_probabilities(count=5, num_rotations=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, num_rotations)).astype(np.float32)


def noise(**changes):
    fields = dict(
        keys=KEYS,
        probabilities=random_probabilities(),
        rotations=ROTATIONS,
        made_by=dict(seed=3, config='größe.py', rotation_accuracy=[80.25]),
    )
    return RotationNoise(**{**fields, **changes})


def arrays(**changes):
    """What stands in a file; None leaves an array out."""
    found = dict(
        keys=np.array([b'a', b'b', b'c']),
        probabilities=random_probabilities(3),
        rotations=np.array(ROTATIONS),
        made_by=np.array('{}'),
    )
    found.update(changes)
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('gamma', [0.5, 1, 2, 3.5])
@pytest.mark.parametrize(
    'rotations', [ROTATIONS, (90, 0), (270, 180, 0), (45, 90, 0, 135, 180)]
)
def test_weights(rotations, gamma, dtype):
    # 1 and 0 also stand where the image is not rotated
    p = random_probabilities(7, len(rotations)).astype(dtype)
    p[0], p[1] = 1, 0
    before = p.copy()
    want = np.empty(p.shape)
    for i in range(len(p)):
        for r, angle in enumerate(rotations):
            want[i, r] = 1 if angle == 0 else 1 - float(p[i, r]) ** gamma
    got = noise_weights(p, rotations, gamma)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    # surely un-rotated or surely not: exactly nothing and all
    for r, angle in enumerate(rotations):
        assert got[0, r] == (angle == 0)
        assert got[1, r] == 1
    np.testing.assert_array_equal(p, before)


def test_the_exponent_is_that_of_the_probability():
    got = noise_weights(np.array([[0.3, 0.9]]), (0, 180), 2)
    assert got[0, 1] == pytest.approx(0.19)
    assert got[0, 1] != pytest.approx((1 - 0.9) ** 2)
    assert got[0, 1] != pytest.approx(1 - (1 - 0.9) ** 2)


def test_upright_index():
    assert upright_index((0, 90, 180, 270)) == 0
    assert upright_index([90, 180, 0]) == 2
    for rotations in ((90, 270), ()):
        with pytest.raises(
            ValueError, match=re.escape(f'{rotations} holds no 0')
        ):
            upright_index(rotations)
    with pytest.raises(ValueError, match='holds no 0'):
        noise_weights(np.zeros((1, 2)), (90, 270), 2)


@pytest.mark.parametrize('text', [False, True])
def test_a_file_gives_back_what_was_written(tmp_path, text):
    path = tmp_path / 'neu' / 'dir' / 'öhr 五.npz'
    exact = np.random.default_rng(1).random((5, 3))
    exact[0] = 0, 1, 0
    written = noise(probabilities=exact, rotations=(180, 0, 90))
    written.save(str(path) if text else path)
    read = RotationNoise.load(str(path) if text else path)
    assert read.keys == KEYS
    assert read.rotations == (180, 0, 90)
    assert isinstance(read.rotations, tuple)
    assert read.made_by == written.made_by
    assert read.probabilities.dtype == np.float32
    np.testing.assert_array_equal(read.probabilities, exact.astype(np.float32))
    # that name and no other
    assert list(path.parent.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == [tmp_path / 'neu']


def test_a_file_holds_plain_arrays(tmp_path):
    path = tmp_path / 'noise.npz'
    noise().save(path)
    with np.load(path, allow_pickle=False) as found:
        kinds = {name: found[name].dtype.kind for name in found.files}
        names = [key.decode('utf-8') for key in found['keys'].tolist()]
    assert kinds == dict(
        keys='S', probabilities='f', rotations='i', made_by='U'
    )
    assert names == KEYS


def test_a_name_of_its_own(tmp_path):
    # NumPy would append an ending
    noise().save(tmp_path / 'noise.bin')
    assert os.listdir(tmp_path) == ['noise.bin']
    assert RotationNoise.load(tmp_path / 'noise.bin').keys == KEYS


@pytest.mark.parametrize('there', [False, True])
def test_an_interrupted_write_changes_nothing(tmp_path, monkeypatch, there):
    path = tmp_path / 'noise.npz'
    if there:
        noise(made_by=dict(number=1)).save(path)
        old = path.read_bytes()

    def stopped(file, **_):
        # to a file that is open, or to a name
        if hasattr(file, 'write'):
            file.write(b'PK half')
            file.flush()
        else:
            Path(file).write_bytes(b'PK half')
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, 'savez_compressed', stopped)
        with pytest.raises(KeyboardInterrupt):
            noise(made_by=dict(number=2)).save(path)
    assert path.exists() == there
    if there:
        assert path.read_bytes() == old
        assert RotationNoise.load(path).made_by == dict(number=1)
    # and the next one is not disturbed by what was left
    noise(made_by=dict(number=3)).save(path)
    assert RotationNoise.load(path).made_by == dict(number=3)
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # a folder is no file either
    for name in ('gone.npz', '.'):
        with pytest.raises(FileNotFoundError) as caught:
            RotationNoise.load(name)
        message = str(caught.value)
        assert f'There is no file "{name}"' in message
        assert str(tmp_path) in message
        assert 'mm-rotssl estimate-noise' in message
        assert 'set the file to None' in message


def corrupt(path):
    """Overwrite compressed data where it does not end."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo('probabilities.npy')
    start = info.header_offset + 30 + len(info.filename)
    content[start : start + 100] = b'\xff' * 100
    path.write_bytes(content)


def write_bad(path, kind):
    if kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'text':
        path.write_text('keys,probabilities\n')
    elif kind == 'one array':
        with path.open('wb') as file:
            np.save(file, np.zeros((3, 4)))
    else:
        noise(
            keys=[f'{i}' for i in range(99)],
            probabilities=random_probabilities(99),
        ).save(path)
        if kind == 'cut':
            path.write_bytes(path.read_bytes()[:-200])
        else:
            corrupt(path)


@pytest.mark.parametrize(
    'kind', ['empty', 'text', 'one array', 'cut', 'corrupt']
)
def test_no_such_file(tmp_path, kind):
    path = tmp_path / 'noise.npz'
    write_bad(path, kind)
    with pytest.raises(ValueError, match='is no file of rotation') as caught:
        RotationNoise.load(path)
    assert f'"{path}"' in str(caught.value)
    assert 'mm-rotssl estimate-noise' in str(caught.value)


class Evil:
    def __reduce__(self):
        return os.system, ('touch evil',)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(keys=None), 'keys'),
        (dict(probabilities=None), 'probabilities'),
        (dict(rotations=None), 'rotations'),
        (dict(made_by=None), 'made_by'),
        (dict(made_by=np.array('{')), 'Expecting'),
        # text, not bytes, as another program would write it
        (dict(keys=np.array(['a', 'b', 'c'])), ''),
        (dict(keys=np.array([b'a', b'\xff', b'c'])), 'utf-8'),
        (dict(rotations=np.array([0, 90, 180, 200])), '200'),
        (dict(rotations=np.array(0)), ''),
        (dict(probabilities=np.full((3, 4), 'a')), ''),
        (dict(keys=np.array([Evil()] * 3)), 'allow_pickle=False'),
        (dict(made_by=np.array(Evil())), 'allow_pickle=False'),
    ],
)
def test_other_content(tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    np.savez('noise.npz', **arrays(**changes))
    with pytest.raises(
        ValueError, match=r'"noise\.npz" is no file of rotation'
    ) as caught:
        RotationNoise.load('noise.npz')
    assert said in str(caught.value)
    # nothing that stands in it was run
    assert os.listdir() == ['noise.npz']


@pytest.mark.parametrize('shape', [(4, 4), (2, 4), (3, 3), (12,), (3, 4, 1)])
def test_wrong_shape(tmp_path, shape):
    path = tmp_path / 'noise.npz'
    np.savez(path, **arrays(probabilities=np.zeros(shape, np.float32)))
    with pytest.raises(ValueError, match='shape') as caught:
        RotationNoise.load(path)
    message = str(caught.value)
    assert f'"{path}" have the shape {shape}; its 3' in message
    assert message.endswith('3 images and 4 rotations make (3, 4).')


@pytest.mark.parametrize('value', [-0.25, 1.5, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('place', [0, 3])
def test_values_out_of_range(tmp_path, value, place):
    path = tmp_path / 'noise.npz'
    # 0 and 1 themselves are fine
    p = np.tile(np.array([0.5, 0, 1, 0.125], np.float32), (20, 1))
    bad = (2, 3, 5, 8, 13, 17, 19)
    p[bad, place] = value
    names = [f'image{i:02}' for i in range(20)]
    noise(keys=names, probabilities=p).save(path)
    with pytest.raises(ValueError, match=r'not in 0\.\.1') as caught:
        RotationNoise.load(path)
    headline, *lines = str(caught.value).splitlines()
    assert headline.startswith(f'7 images in "{path}"')
    row = [0.5, 0.0, 1.0, 0.125]
    row[place] = value
    # the first five with what they have
    assert lines == [f'  {names[i]}: {row}' for i in bad[:5]]


def test_a_image_twice(tmp_path):
    path = tmp_path / 'noise.npz'
    noise(keys=['x', 'ö', 'x', 'y', 'ö']).save(path)
    with pytest.raises(ValueError, match='more than once') as caught:
        RotationNoise.load(path)
    message = str(caught.value)
    assert message.startswith(f'2 images are in "{path}"')
    assert message.endswith('such as x, ö.')


def test_rows_are_in_the_order_of_the_data_set():
    whole = noise()
    want = {
        key: row.tolist()
        for key, row in zip(KEYS, whole.probabilities, strict=True)
    }
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(5)[: 5 - seed]
        keys = [KEYS[i] for i in order]
        rows = whole.rows(keys, ROTATIONS, 'f')
        assert rows.tolist() == [want[key] for key in keys]
    # a config gives a list
    assert whole.rows(['a'], list(ROTATIONS), 'f').tolist() == [want['a']]


@pytest.mark.parametrize('rotations', [(0, 180), (0, 90, 270, 180)])
def test_rows_of_other_rotations(rotations):
    with pytest.raises(ValueError, match='rotations') as caught:
        noise().rows(['a'], rotations, 'some.npz')
    message = str(caught.value)
    for part in ('"some.npz"', str(rotations), str(ROTATIONS)):
        assert part in message


def test_rows_of_missing_images():
    wanted = ['m1', 'a', 'm2', 'm3', 'ё', 'm4', 'm5', 'm6', 'm7']
    with pytest.raises(ValueError, match='not among') as caught:
        noise().rows(wanted, ROTATIONS, 'some.npz')
    message = ' '.join(str(caught.value).split())
    assert '7 of the 9 training images are not among the 5' in message
    assert '"some.npz", such as m1, m2, m3, m4, m5.' in message
    assert 'm6' not in message
    assert f'for instance, {KEYS[0]}, {KEYS[1]}.' in message
    assert 'mm-rotssl estimate-noise' in message


@pytest.mark.parametrize('rotations', [ROTATIONS, (90, 0), (180, 270, 0)])
def test_margins(rotations):
    p = random_probabilities(30, len(rotations), 5)
    p[0], p[1] = 0.25, 1
    got = noise(
        keys=[str(i) for i in range(30)], probabilities=p, rotations=rotations
    ).margins()
    want = []
    for row in p:
        scores = dict(zip(rotations, row.tolist(), strict=True))
        upright = scores.pop(0)
        want.append(upright - max(scores.values()))
    assert got.shape == (30,)
    np.testing.assert_allclose(got, want, atol=1e-7)
    assert min(want) < 0 < max(want)
    assert got[0] == got[1] == 0


def test_margins_need_an_upright_copy():
    with pytest.raises(ValueError, match='holds no 0'):
        noise(
            probabilities=random_probabilities(5, 2), rotations=(90, 270)
        ).margins()


def test_transform_reads_the_rows_of_the_images(tmp_path):
    path = tmp_path / 'noise.npz'
    noise().save(path)
    transform = LoadRotationNoise(str(path))
    with pytest.raises(RuntimeError, match=r'noise\.npz.*BindDatasetHook'):
        transform(dict(sample_idx=0))
    # the rows are found by name, whatever the order and however many
    names = [KEYS[3], KEYS[0], KEYS[4]]
    transform.bind_dataset(names)
    for index, name in enumerate(names):
        found = transform(dict(sample_idx=index, img_path='x'))
        assert found['img_path'] == 'x'
        row = found['rotation_noise']
        assert row.dtype == np.float32
        np.testing.assert_array_equal(
            row, random_probabilities()[KEYS.index(name)]
        )
    assert repr(transform) == (
        f"LoadRotationNoise(file='{path}', rotations=(0, 90, 180, 270))"
    )
    with pytest.raises(ValueError, match='such as b'):
        transform.bind_dataset([*names, 'b'])
    with pytest.raises(ValueError, match=r'rotations is \(0, 180\)'):
        LoadRotationNoise(str(path), (0, 180)).bind_dataset(names)
    with pytest.raises(FileNotFoundError, match='estimate-noise'):
        LoadRotationNoise(str(tmp_path / 'none.npz')).bind_dataset(names)


def test_transform_without_a_file_has_no_noise():
    transform = LoadRotationNoise(rotations=(0, 180, 90))
    transform.bind_dataset(['a'])
    row = transform(dict(sample_idx=7))['rotation_noise']
    assert (row.dtype, row.tolist()) == (np.float32, [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match='50'):
        LoadRotationNoise(rotations=(0, 50))
