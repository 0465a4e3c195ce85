"""Images that the package drew are told from input."""

import os
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from mm_rotssl.utils import list_written, save_figure, write_image


def test_noted_once(tmp_path):
    assert list_written(tmp_path) == set()
    for name in ('a.png', 'b é.png', 'a.png'):
        write_image(tmp_path / 'new' / name, name.encode())
    assert (tmp_path / 'new/a.png').read_bytes() == b'a.png'
    assert {'a.png', 'b é.png'} <= list_written(tmp_path / 'new')
    text = (tmp_path / 'new/.mm_rotssl_output').read_text(encoding='utf-8')
    assert text == 'a.png\nb é.png\n'


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='disk full'):
        write_image(tmp_path / 'a.png', b'x')
    assert list(tmp_path.iterdir()) == []


def draw():
    figure = Figure((2, 1), dpi=100)
    figure.subplots().plot([1, 2, 4], label='a line')
    figure.legend()
    return figure


def test_figures_as_png_and_svg(tmp_path):
    path = tmp_path / 'new' / 'a.b.png'
    assert save_figure(draw(), path) == path
    assert {file.suffix for file in path.parent.iterdir()} == {
        *('.png', ''),
    }
    assert save_figure(draw(), path, svg=True) == path
    vector = path.with_name('a.b.svg')
    assert imread(path).shape == (100, 200, 4)
    root = ElementTree.fromstring(vector.read_bytes())
    assert root.get('viewBox') == '0 0 144 72'
    # outlines, not the reader's fonts
    assert not list(root.iter('{http://www.w3.org/2000/svg}text'))
    assert list_written(path.parent) >= {path.name, vector.name}


def test_equal_figures_are_equal_files(tmp_path):
    files = []
    for name in ('a', 'b'):
        path = save_figure(draw(), tmp_path / f'{name}.png', svg=True)
        files.append(
            [path.read_bytes(), path.with_suffix('.svg').read_bytes()]
        )
    assert files[0] == files[1]


def test_figures_are_on_white(tmp_path):
    """Pages may be dark."""
    from mm_rotssl.visualization import plot_confusion

    path = tmp_path / 'a.png'
    save_figure(plot_confusion(np.eye(2, dtype=int), ['a', 'b']), path)
    corner = imread(path)[-1, -1]
    assert corner.tolist() == [1, 1, 1, 1]
