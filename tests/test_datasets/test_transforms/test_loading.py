"""Images of all kinds, against PIL, and files that are none."""

import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from mm_rotssl.datasets.transforms import BrokenImageError, LoadIntactImage


@pytest.fixture(scope='module')
def photo():
    """A smooth image, so that JPEG changes it little, of odd size."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((131, 97), Image.Resampling.BICUBIC)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(path, content):
    path.write_bytes(content)
    results = LoadIntactImage()(dict(img_path=str(path)))
    img = results['img']
    assert img.dtype == np.uint8
    assert img.ndim == 3
    assert img.shape[2] == 3
    assert results['img_shape'] == results['ori_shape'] == img.shape[:2]
    return img[..., ::-1]


def with_thumbnail(photo):
    """A JPEG whose header holds a smaller one, as cameras write them."""
    small = encode(photo.resize((32, 24)), 'JPEG')
    exif = b'Exif\x00\x00' + b'II*\x00\x08\x00\x00\x00\x00\x00' + b'\x00' * 4
    return encode(photo, 'JPEG', exif=exif + small)


def header_length(jpeg):
    """Where the entropy-coded data of the (last) image begins."""
    start = jpeg.rfind(b'\xff\xda')
    return start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], 'big')


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'PPM'])
def test_color_is_exact(tmp_path, photo, kind):
    img = load(tmp_path / 'a', encode(photo, kind))
    np.testing.assert_array_equal(img, np.asarray(photo))


def test_webp_lossless_is_exact(tmp_path, photo):
    img = load(tmp_path / 'a.webp', encode(photo, 'WEBP', lossless=True))
    np.testing.assert_array_equal(img, np.asarray(photo))


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM'])
def test_gray_becomes_three_equal_channels(tmp_path, photo, kind):
    gray = photo.convert('L')
    img = load(tmp_path / 'a', encode(gray, kind))
    want = np.repeat(np.asarray(gray)[..., None], 3, 2)
    np.testing.assert_array_equal(img, want)


def test_one_bit(tmp_path):
    bits = np.random.default_rng(1).integers(0, 2, (19, 23)).astype(bool)
    img = load(tmp_path / 'a.png', encode(Image.fromarray(bits), 'PNG'))
    want = np.repeat(bits[..., None] * np.uint8(255), 3, 2)
    np.testing.assert_array_equal(img, want)


def test_sixteen_bits_keep_the_high_byte(tmp_path):
    values = np.random.default_rng(2).integers(0, 2**16, (21, 30), np.uint16)
    img = load(tmp_path / 'a.png', encode(Image.fromarray(values), 'PNG'))
    want = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, 2)
    np.testing.assert_array_equal(img, want)


def test_palette(tmp_path, photo):
    few = photo.quantize(16)
    img = load(tmp_path / 'a.png', encode(few, 'PNG'))
    np.testing.assert_array_equal(img, np.asarray(few.convert('RGB')))


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparency_is_dropped(tmp_path, photo, mode):
    image = photo.convert(mode)
    alpha = np.random.default_rng(3).integers(0, 256, (97, 131), np.uint8)
    image.putalpha(Image.fromarray(alpha))
    img = load(tmp_path / 'a.png', encode(image, 'PNG'))
    want = photo if mode == 'RGBA' else photo.convert('L').convert('RGB')
    np.testing.assert_array_equal(img, np.asarray(want))


def test_cmyk(tmp_path, photo):
    content = encode(photo.convert('CMYK'), 'JPEG', quality=95)
    img = load(tmp_path / 'a.jpg', content)
    want = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
    # the two conversions round differently
    assert np.abs(img.astype(int) - want).max() <= 2


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_obeyed(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(photo, 'JPEG', exif=exif)
    img = load(tmp_path / 'a.jpg', content)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    # decoders may differ by a rounding; a wrong turn differs by far more
    assert np.abs(img.astype(int) - want).max() <= 3


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_one_pixel(tmp_path, kind):
    content = encode(Image.new('RGB', (1, 1), (200, 100, 50)), kind)
    img = load(tmp_path / 'a', content)
    assert img.shape == (1, 1, 3)
    assert np.abs(img[0, 0].astype(int) - (200, 100, 50)).max() <= 3


def test_misnamed_is_fine(tmp_path, photo):
    img = load(tmp_path / 'jpeg.png', encode(photo, 'JPEG', quality=95))
    assert np.abs(img.astype(int) - np.asarray(photo)).mean() < 3


@pytest.mark.parametrize('variant', ['plain', 'progressive', 'thumbnail'])
@pytest.mark.parametrize(
    'tail',
    [
        b'\x00' * 7,
        # the film of a motion photo holds any bytes, such as these markers
        b'....ftypmp42\xff\xd9\xff\xda\x00\xff\xd8',
        b'\xff\xda' * 3,
    ],
)
def test_jpeg_with_a_tail_is_fine(tmp_path, photo, variant, tail):
    if variant == 'thumbnail':
        content = with_thumbnail(photo)
    else:
        content = encode(photo, 'JPEG', progressive=variant == 'progressive')
    want = load(tmp_path / 'a.jpg', content)
    got = load(tmp_path / 'b.jpg', content + tail)
    np.testing.assert_array_equal(got, want)


def test_png_with_a_tail_is_fine(tmp_path, photo):
    img = load(tmp_path / 'a.png', encode(photo, 'PNG') + b'tail' * 100)
    np.testing.assert_array_equal(img, np.asarray(photo))


def test_restart_markers_are_no_end(tmp_path, photo):
    content = encode(photo, 'JPEG', restart_marker_blocks=2)
    assert b'\xff\xd3' in content[header_length(content) :]
    load(tmp_path / 'a.jpg', content + b'\x00')
    with pytest.raises(BrokenImageError, match='truncated'):
        load(tmp_path / 'b.jpg', content[:-2])


@pytest.mark.parametrize('variant', ['plain', 'progressive', 'thumbnail'])
def test_truncated_jpeg(tmp_path, photo, variant):
    if variant == 'thumbnail':
        content = with_thumbnail(photo)
        thumbnail_end = content.find(b'\xff\xd9') + 2
        assert thumbnail_end < header_length(content)
        cuts = [thumbnail_end - 40, thumbnail_end - 2, thumbnail_end]
    else:
        content = encode(photo, 'JPEG', progressive=variant == 'progressive')
        cuts = []
    load(tmp_path / 'whole.jpg', content)
    data = header_length(content)
    cuts += [2, 10, data - 5, data, data + 1, len(content) - 1]
    cuts += [len(content) - 2, len(content) - 3]
    cuts += list(range(20, len(content), len(content) // 20))
    for cut in cuts:
        # '.*' since within the header OpenCV is the one to notice
        with pytest.raises(BrokenImageError, match=r'cut\.jpg: .*'):
            load(tmp_path / 'cut.jpg', content[:cut])


def test_truncated_in_the_scan_is_called_so(tmp_path, photo):
    content = with_thumbnail(photo)
    cut = (header_length(content) + len(content)) // 2
    for tail in (b'', b'\x00' * 100):
        with pytest.raises(BrokenImageError, match='file is truncated'):
            load(tmp_path / 'cut.jpg', content[:cut] + tail)


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'WEBP', 'PPM'])
@pytest.mark.parametrize('kept', [0.01, 0.3, 0.9])
def test_other_truncated_files(tmp_path, photo, kind, kept):
    content = encode(photo, kind)
    with pytest.raises(BrokenImageError, match='cut'):
        load(tmp_path / 'cut', content[: int(kept * len(content))])


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'the file is empty'),
        (b'Sorry, this is no image.', 'the content is no known image'),
        (b'\xff\xd8', 'truncated'),
        (b'\x89PNG\r\n\x1a\n', 'truncated'),
    ],
)
def test_no_image(tmp_path, content, reason):
    with pytest.raises(BrokenImageError, match=rf'a\.jpg: .*{reason}'):
        load(tmp_path / 'a.jpg', content)


def test_missing_file_and_folder_instead_of_file(tmp_path):
    with pytest.raises(BrokenImageError, match=r'gone\.jpg'):
        LoadIntactImage()(dict(img_path=str(tmp_path / 'gone.jpg')))
    with pytest.raises(BrokenImageError, match='directory'):
        LoadIntactImage()(dict(img_path=str(tmp_path)))


def test_settings(tmp_path, photo):
    path = tmp_path / 'a.png'
    path.write_bytes(encode(photo, 'PNG'))
    gray = LoadIntactImage(color_type='grayscale')
    assert gray(dict(img_path=str(path)))['img'].shape == (97, 131)
    real = LoadIntactImage(to_float32=True, imdecode_backend='pillow')
    img = real(dict(img_path=str(path)))['img']
    assert img.dtype == np.float32
    np.testing.assert_array_equal(img[..., ::-1], np.asarray(photo))


@pytest.mark.parametrize('name', ['ignore_empty', 'file_client_args'])
def test_settings_without_effect_are_refused(name):
    with pytest.raises(TypeError, match=name):
        LoadIntactImage(**{name: None})


def write_exif(path, photo, kind, orientation):
    """A whole image with a camera's tag, without loss where that goes."""
    exif = Image.Exif()
    exif[0x112] = orientation
    options = dict(quality=98) if kind == 'JPEG' else dict(lossless=True)
    photo.save(path, kind, exif=exif, **options)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_obeyed_by_all(tmp_path, photo, kind, orientation):
    path = tmp_path / 'a'
    write_exif(path, photo, kind, orientation)
    with Image.open(path) as image:
        want = np.asarray(ImageOps.exif_transpose(image).convert('RGB'), int)
    for settings in (
        {},
        dict(color_type='unchanged'),
        dict(color_type='unchanged', imdecode_backend='pillow'),
    ):
        img = LoadIntactImage(**settings)(dict(img_path=str(path)))['img']
        assert img.shape == want.shape
        assert abs(img[..., ::-1] - want).mean() < 3


def test_orientation_is_ignored_where_that_is_asked_for(tmp_path, photo):
    write_exif(tmp_path / 'a.jpg', photo, 'JPEG', 6)
    for color_type in ('color', 'grayscale'):
        loader = LoadIntactImage(color_type=f'{color_type}_ignore_orientation')
        img = loader(dict(img_path=str(tmp_path / 'a.jpg')))['img']
        assert img.shape[:2] == (97, 131)


def sixteen(path, top, kind='PNG'):
    values = np.random.default_rng(5).integers(0, top, (21, 30), np.uint16)
    values[0, 0] = top - 1
    Image.fromarray(values).save(path, kind)
    return values


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM'])
def test_twelve_bits_in_sixteen(tmp_path, log, kind):
    path = tmp_path / 'a'
    values = sixteen(path, 2**12, kind)
    dark = LoadIntactImage()
    for _ in range(3):
        img = dark(dict(img_path=str(path)))['img']
    assert img.max() == 15
    text = log.read_text()
    assert text.count('WARNING') == 1
    assert 'uses 12 of them' in text
    assert 'set bit_depth=12 of LoadIntactImage' in text
    right = LoadIntactImage(bit_depth=12)
    img = right(dict(img_path=str(path)))['img']
    assert img.dtype == np.uint8
    np.testing.assert_array_equal(img[..., 1], values >> 4)
    # also for what is kept as it is
    plain = LoadIntactImage(bit_depth=12, color_type='unchanged')
    img = plain(dict(img_path=str(path)))['img']
    np.testing.assert_array_equal(img, values >> 4)
    assert log.read_text() == text


def test_no_warning_where_all_bits_are_used_or_none_is_lost(tmp_path, log):
    path = tmp_path / 'a.png'
    for top in (2**16, 2**13, 2**8):
        sixteen(path, top)
        LoadIntactImage()(dict(img_path=str(path)))
    values = sixteen(path, 2**12)
    real = LoadIntactImage(color_type='unchanged', to_float32=True)
    img = real(dict(img_path=str(path)))['img']
    assert img.dtype == np.float32
    np.testing.assert_array_equal(img, values)
    assert not log.exists() or 'WARNING' not in log.read_text()


def test_more_bits_than_were_said(tmp_path):
    sixteen(tmp_path / 'a.png', 2**12)
    with pytest.raises(BrokenImageError, match='4095 needs more than the 10'):
        LoadIntactImage(bit_depth=10)(dict(img_path=str(tmp_path / 'a.png')))
    with pytest.raises(ValueError, match=r'bit_depth=8 of .*: 9 to 16'):
        LoadIntactImage(bit_depth=8)
    with pytest.raises(ValueError, match='knows 8 bits only'):
        LoadIntactImage(bit_depth=12, imdecode_backend='pillow')


@pytest.mark.parametrize('channels', [(), (3,)])
def test_real_numbers(tmp_path, channels):
    path = tmp_path / 'a.tif'
    values = np.random.default_rng(0).normal(size=(9, 7, *channels))
    values = values.astype(np.float32)
    cv2.imwrite(str(path), values)
    with pytest.raises(
        BrokenImageError,
        match=r'a\.tif: the pixels are float32 numbers from -.*_float32=True',
    ):
        LoadIntactImage()(dict(img_path=str(path)))
    img = LoadIntactImage(to_float32=True)(dict(img_path=str(path)))['img']
    assert img.shape == (9, 7, 3)
    want = values if channels else np.repeat(values[..., None], 3, 2)
    np.testing.assert_array_equal(img, want)


@pytest.mark.parametrize(
    'settings',
    [
        {},
        dict(quality=95, subsampling=0),
        dict(restart_marker_blocks=4),
        dict(kind='WEBP'),
        dict(kind='WEBP', lossless=True),
        dict(kind='PNG'),
    ],
)
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_damage_inside(tmp_path, photo, settings, mode):
    """64 bytes are zeros, at any place in the data."""
    settings = dict(settings)
    kind = settings.pop('kind', 'JPEG')
    content = encode(photo.convert(mode).resize((400, 300)), kind, **settings)
    path = tmp_path / 'a.jpg'
    path.write_bytes(content)
    LoadIntactImage()(dict(img_path=str(path)))
    for place in np.linspace(0.1, 0.9, 10):
        damaged = bytearray(content)
        start = int(place * len(content))
        damaged[start : start + 64] = bytes(64)
        path.write_bytes(damaged)
        with pytest.raises(BrokenImageError):
            LoadIntactImage()(dict(img_path=str(path)))


def test_zeros_that_are_no_damage(tmp_path, photo):
    # in a header, behind the end, and in flat areas
    padded = encode(photo, 'JPEG', exif=b'Exif\x00\x00' + bytes(500))
    load(tmp_path / 'a.jpg', padded + bytes(500))
    flat = Image.new('RGB', (2000, 1000), (3, 200, 7))
    content = encode(flat, 'JPEG', optimize=True)
    assert bytes(64) in content[header_length(content) :]
    load(tmp_path / 'b.jpg', content)
    load(tmp_path / 'c.bmp', encode(Image.new('RGB', (50, 50)), 'BMP'))


def bomb(kind, side):
    """A small file of many pixels, or the header of one."""
    if kind == 'PNG':
        head = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
        chunk = b'IHDR' + head
        crc = struct.pack('>I', zlib.crc32(chunk))
        return b'\x89PNG\r\n\x1a\n\0\0\0\r' + chunk + crc + b'IEND'
    if kind == 'JPEG':
        content = bytearray(encode(Image.new('L', (8, 8)), 'JPEG'))
        place = content.index(b'\xff\xc0')
        content[place + 5 : place + 9] = struct.pack('>HH', side, side)
        return bytes(content)
    content = bytearray(encode(Image.new('I;16', (8, 8)), kind))
    for tag in (256, 257):
        place = content.index(struct.pack('<HHII', tag, 4, 1, 8))
        content[place : place + 12] = struct.pack('<HHII', tag, 4, 1, side)
    return bytes(content)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'TIFF'])
def test_too_many_pixels(tmp_path, kind):
    path = tmp_path / 'a'
    path.write_bytes(bomb(kind, 30_000))
    tracemalloc.start()
    with pytest.raises(
        BrokenImageError,
        match=r'30000x30000 pixels are more than max_pixels=268435456',
    ):
        LoadIntactImage()(dict(img_path=str(path)))
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'TIFF', 'BMP', 'WEBP', 'PPM'])
def test_limit_of_pixels_is_exact(tmp_path, photo, kind):
    (tmp_path / 'a').write_bytes(encode(photo, kind))
    for limit in (131 * 97, 131 * 97 - 1):
        loader = LoadIntactImage(max_pixels=limit)
        if limit == 131 * 97:
            loader(dict(img_path=str(tmp_path / 'a')))
        else:
            with pytest.raises(BrokenImageError, match='131x97 pixels'):
                loader(dict(img_path=str(tmp_path / 'a')))


@pytest.mark.parametrize('channels', [4, 5])
def test_any_number_of_channels(tmp_path, channels):
    values = np.random.default_rng(0).integers(
        0, 256, (9, 11, channels), np.uint8
    )
    path = tmp_path / 'a.tif'
    settings = dict(color_type='unchanged')
    if channels == 4:
        cv2.imwrite(str(path), values)
    else:
        tifffile = pytest.importorskip('tifffile')
        tifffile.imwrite(path, values, photometric='minisblack')
        settings['imdecode_backend'] = 'tifffile'
    img = LoadIntactImage(**settings)(dict(img_path=str(path)))['img']
    np.testing.assert_array_equal(img, values)
