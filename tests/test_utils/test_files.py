import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Harmful
from matplotlib.figure import Figure
from matplotlib.image import imread

from mm_rotssl.utils import (
    open_arrays,
    replacing,
    save_figure,
    write_arrays,
    write_file,
)


@pytest.mark.parametrize('there', [False, True])
@pytest.mark.parametrize('when', ['writing', 'replacing'])
def test_interrupted(tmp_path, monkeypatch, there, when):
    path = tmp_path / 'a.txt'
    if there:
        path.write_bytes(b'old')

    def half(self, data):
        with open(self, 'wb') as file:
            file.write(data[:2])
        raise KeyboardInterrupt

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == 'writing':
            patch.setattr(Path, 'write_bytes', half)
        else:
            patch.setattr(os, 'replace', stopped)
        with pytest.raises(KeyboardInterrupt):
            write_file(path, b'new content')
    # the old content or none, and nothing beside it
    assert list(tmp_path.iterdir()) == ([path] if there else [])
    if there:
        assert path.read_bytes() == b'old'
    write_file(path, b'new content')
    assert path.read_bytes() == b'new content'
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_what_was_there_until_the_end(tmp_path):
    path = tmp_path / 'new' / 'a.b.txt'
    for content, before in ((b'first', None), (b'second', b'first')):
        with replacing(str(path)) as temporary:
            # what writes by the suffix does the same
            assert temporary.suffix == '.txt'
            assert temporary.parent == path.parent
            temporary.write_bytes(content)
            assert (path.read_bytes() if path.exists() else None) == before
        assert path.read_bytes() == content

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b'third')
            raise ValueError('reason')

    with pytest.raises(ValueError, match='reason'):
        fail()
    # nor does it fail where nothing was written
    with pytest.raises(ValueError, match='reason'), replacing(path):
        raise ValueError('reason')
    assert path.read_bytes() == b'second'
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize('where', ['mkdir', 'write_bytes', 'replace'])
def test_what_cannot_be_written_is_named(tmp_path, monkeypatch, code, where):
    path = tmp_path / 'new/a.txt'

    def fail(*args, **_):
        # as the system does, which names files that it opens
        raise OSError(code, os.strerror(code), *map(str, args[:1]))

    def half(file, data):
        with open(file, 'wb') as opened:
            opened.write(data[:2])
        raise OSError(code, os.strerror(code))

    owner = os if where == 'replace' else Path
    monkeypatch.setattr(owner, where, half if where == 'write_bytes' else fail)
    with pytest.raises(OSError, match=r"can't be written") as info:
        write_file(path, b'content')
    want = f'"{path}" can\'t be written: {os.strerror(code)}.'
    assert str(info.value) == want
    assert not [p for p in tmp_path.rglob('*') if p.is_file()]


def test_other_errors_keep_their_words(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r'No such file.*other\.txt'),
        replacing(tmp_path / 'a.txt'),
    ):
        (tmp_path / 'other.txt').read_bytes()


def test_what_a_killed_process_left_is_removed(tmp_path):
    done = subprocess.Popen([sys.executable, '-c', ''])
    done.wait()
    mine = [
        f'.a.{done.pid}.txt',  # of a process that has ended
        f'.a.{os.getppid()}.txt',  # may still write
        f'.b.{done.pid}.txt',  # another file's
        f'.a.{done.pid}.md',
        '.a.b.txt',
    ]
    for name in mine:
        (tmp_path / name).touch()
    write_file(tmp_path / 'a.txt', b'content')
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {'a.txt', *mine[1:]}


def test_figure_in_a_new_folder(tmp_path):
    figure = Figure((1, 2), dpi=50, facecolor='red')
    path = save_figure(figure, tmp_path / 'new' / 'a.png')
    assert path == tmp_path / 'new' / 'a.png'
    pixels = imread(path)
    assert pixels.shape == (100, 50, 4)
    assert pixels[5, 5].tolist() == [1, 0, 0, 1]


def opened(path):
    with open_arrays(path, 'things', 'tools/make.py', 'buy it') as arrays:
        return dict(arrays)


def test_arrays_round_trip(tmp_path):
    given = dict(
        numbers=np.arange(6, dtype=np.float32).reshape(2, 3),
        # of Fortran's order, and no array yet
        transposed=np.arange(6, dtype=np.int16).reshape(2, 3).T,
        words=np.array(['ü', '日本']),
        number=3,
        nothing=np.zeros((0, 4), np.uint8),
    )
    path = tmp_path / 'new' / 'a.npz'
    write_arrays(path, **given)
    assert [p.name for p in tmp_path.rglob('*.*')] == ['a.npz']
    for where in (path, str(path)):
        arrays = opened(where)
        assert sorted(arrays) == sorted(given)
        for name, array in given.items():
            assert arrays[name].dtype == np.asarray(array).dtype
            np.testing.assert_array_equal(arrays[name], array)
    # zeros take no room
    write_arrays(path, zeros=np.zeros(10**6))
    assert path.stat().st_size < 10**5


def test_interrupted_arrays(tmp_path, monkeypatch):
    path = tmp_path / 'a.npz'
    write_arrays(path, a=np.arange(3))

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', stopped)
        with pytest.raises(KeyboardInterrupt):
            write_arrays(path, a=np.arange(4))
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(opened(path)['a'], np.arange(3))


def test_code_in_arrays_is_not_run(tmp_path):
    path, trace = tmp_path / 'a.npz', tmp_path / 'trace'
    np.savez(path, a=np.array([Harmful(trace)], object))
    with pytest.raises(ValueError, match='things') as error:
        opened(path)
    assert f'"{path}" is no file of things' in str(error.value)
    assert not trace.exists()


def test_no_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('a.npz', tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            opened(path)
        assert str(error.value) == (
            f'There is no file "{path}" of things (looked from '
            f'"{tmp_path}"). Make it with tools/make.py, or buy it.'
        )


def test_other_content_than_arrays(tmp_path):
    path = tmp_path / 'a.npz'
    write_arrays(path, a=np.arange(99))
    content = path.read_bytes()
    one_array = io.BytesIO()
    np.save(one_array, np.arange(9))
    for other in (
        *(content[:n] for n in range(0, len(content), 9)),
        b'text',
        one_array.getvalue(),
    ):
        path.write_bytes(other)
        with pytest.raises(ValueError, match='is no file of') as error:
            opened(path)
        assert f'"{path}" is no file of things as tools/make.py' in str(
            error.value
        )


def test_what_the_reader_finds_wrong_is_said_of_the_file(tmp_path):
    path = tmp_path / 'a.npz'
    write_arrays(path, a=np.arange(3))
    with (
        pytest.raises(ValueError, match='it holds 3 numbers') as error,
        open_arrays(path, 'things', 'tools/make.py', 'buy it') as arrays,
    ):
        raise ValueError(f'it holds {len(arrays["a"])} numbers')
    assert f'"{path}" is no file of things' in str(error.value)
    with (
        pytest.raises(ValueError, match='other'),
        open_arrays(path, 'things', 'tools/make.py', 'buy it') as arrays,
    ):
        _ = arrays['other']

    # stopping the program is no fault of the file
    with (
        pytest.raises(KeyboardInterrupt),
        open_arrays(path, 'things', 'tools/make.py', 'buy it'),
    ):
        raise KeyboardInterrupt
