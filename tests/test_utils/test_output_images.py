"""Images that the package drew are told from input."""

import os

import pytest

from mm_rotssl.utils import list_written, write_image


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
