import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from mm_rotssl.utils import save_figure, write_file


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


def test_figure_in_a_new_folder(tmp_path):
    figure = Figure((1, 2), dpi=50, facecolor='red')
    path = save_figure(figure, tmp_path / 'new' / 'a.png')
    assert path == tmp_path / 'new' / 'a.png'
    pixels = imread(path)
    assert pixels.shape == (100, 50, 4)
    assert pixels[5, 5].tolist() == [1, 0, 0, 1]
