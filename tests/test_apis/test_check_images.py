"""Broken and unusual images of a folder."""

import argparse
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mm_rotssl.apis import check_images
from mm_rotssl.cli import check_images as command
from mm_rotssl.datasets import ImageFolder, image_keys
from mm_rotssl.datasets.transforms.loading import MAX_PIXELS


@pytest.fixture(scope='module')
def photo():
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    return Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def zeroed(content, place):
    damaged = bytearray(content)
    start = int(place * len(content))
    damaged[start : start + 64] = bytes(64)
    return bytes(damaged)


def test_each_kind(tmp_path, photo):
    folder = tmp_path / 'images'
    (folder / 'sub').mkdir(parents=True)
    exif = Image.Exif()
    exif[0x112] = 6
    whole = {
        'a.jpg': encode(photo, 'JPEG'),
        'sub/again.jpg': encode(photo, 'JPEG'),
        'sub/turned.jpg': encode(photo, 'JPEG', exif=exif),
        'rgba.png': encode(photo.convert('RGBA'), 'PNG'),
    }
    progressive = encode(photo, 'JPEG', progressive=True)
    damaged = {
        'cut.jpg': whole['a.jpg'][:-500],
        'zeros.jpg': zeroed(whole['a.jpg'], 0.5),
        'progressive.jpg': zeroed(progressive, 0.5),
        'zeros.webp': zeroed(encode(photo, 'WEBP'), 0.5),
        'zeros.png': zeroed(encode(photo, 'PNG'), 0.5),
        'lzw.tif': zeroed(encode(photo, 'TIFF', compression='tiff_lzw'), 0.5),
        'empty.jpg': b'',
        'text.jpg': b'no image',
    }
    for name, content in (whole | damaged).items():
        (folder / name).write_bytes(content)
    twelve = np.random.default_rng(0).integers(0, 4096, (9, 9), np.uint16)
    twelve[0, 0] = 4095
    cv2.imwrite(str(folder / 'twelve.png'), twelve)
    cv2.imwrite(str(folder / 'sixteen.png'), twelve * 16)
    cv2.imwrite(str(folder / 'real.tif'), np.zeros((9, 9), np.float32))
    good = [*whole, 'twelve.png', 'sixteen.png', 'real.tif']
    found = check_images(folder, tmp_path / 'good.txt', num_workers=1)
    assert found.good == sorted(good)
    assert list(found.broken) == sorted(damaged)
    for name, reason in {
        'cut.jpg': 'truncated',
        'zeros.jpg': 'zeros in place of its data',
        'progressive.jpg': 'damaged inside: Corrupt JPEG data',
        'zeros.webp': 'zeros in place of its data',
        'lzw.tif': 'damaged inside: ',
        'empty.jpg': 'the file is empty',
        'text.jpg': 'no known image',
    }.items():
        assert reason in found.broken[name], name
    notes = {note.partition(',')[0]: p for note, p in found.notes.items()}
    assert notes == {
        'turned by an orientation tag': ['sub/turned.jpg'],
        '4 channels': ['rgba.png'],
        'the same file as another': ['sub/again.jpg'],
        '16 bits a value of which 12 are used': ['twelve.png'],
        '16 bits a value': ['sixteen.png'],
        'float32 values: to_float32=True of LoadIntactImage': ['real.tif'],
    }
    dataset = ImageFolder(str(folder), ann_file=str(tmp_path / 'good.txt'))
    assert image_keys(dataset) == found.good


def test_limit_of_pixels(tmp_path, photo):
    photo.save(tmp_path / 'a.png')
    found = check_images(tmp_path, max_pixels=119_999, num_workers=1)
    assert found.broken['a.png'].startswith('400x300 pixels are more than max')
    assert not check_images(tmp_path, max_pixels=120_000).broken


def test_nothing_to_check(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no folder ".*none"'):
        check_images(tmp_path / 'none')
    with pytest.raises(ValueError, match='No image was found'):
        check_images(tmp_path)


def test_command(tmp_path, photo, run_cli, capsys):
    photo.save(tmp_path / 'a.png')
    run_cli('check-images', tmp_path, '--num-workers', 1)
    assert capsys.readouterr().out.endswith('1 good, 0 broken\n')
    (tmp_path / 'b [x].png').write_bytes(b'')
    with pytest.raises(SystemExit) as info:
        run_cli('check-images', tmp_path, '--out', tmp_path / 'good.txt')
    assert info.value.code == 1
    text = capsys.readouterr().out
    assert 'broken  b [x].png: the file is empty\n' in text
    assert (tmp_path / 'good.txt').read_text() == 'a.png\n'
    with pytest.raises(SystemExit, match='Error: There is no folder'):
        run_cli('check-images', tmp_path / 'none')


def test_default_of_the_command():
    """It imports nothing to ask."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert parser.parse_args(['folder']).max_pixels == MAX_PIXELS
