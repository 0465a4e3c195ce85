"""What the bytes of an image file tell before it is decoded."""

import io
import re
from collections.abc import Callable
from typing import Any

from PIL import (
    BmpImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

# A marker that ends a scan: within it 0xff is followed by 0x00 or is part of a
# restart marker, and before a marker 0xff may be repeated.
_JPEG_MARKER = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')
_JPEG_END = b'\xff\xd9'
_JPEG_SCAN = b'\xff\xda'
_JPEG_TABLES = b'\xff\xc4'
# with Huffman codes and without refinement scans
_JPEG_SEQUENTIAL = (b'\xff\xc0', b'\xff\xc1')
# more than an encoder ever writes in a row, see `find_damage`
_ZEROS = bytes(32)
_TIFF_STARTS = (b'II*\x00', b'MM\x00*', b'II+\x00', b'MM\x00+')
# of all kinds of JPEG; c4, c8 and cc are other segments
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# the classes, since PIL's open() has a limit of its own on the size
_READERS: dict[bytes, Callable[..., Any]] = {
    b'\xff\xd8': JpegImagePlugin.JpegImageFile,
    b'\x89PNG': PngImagePlugin.PngImageFile,
    b'RIFF': WebPImagePlugin.WebPImageFile,
    b'BM': BmpImagePlugin.BmpImageFile,
    b'P': PpmImagePlugin.PpmImageFile,
}
_ORIENTATION = 274


def read_size(content: bytes) -> tuple[int, int] | None:
    """Read the size of an image, decoding nothing.

    Args:
        content (bytes): Of the file.

    Returns:
        tuple[int, int] | None: Width and height in pixels, as stored; None
        where the format is not known, or the header is damaged.
    """
    # PNG and JPEG by hand, since PIL refuses files that OpenCV reads
    if content.startswith(b'\x89PNG'):
        width, height = content[16:20], content[20:24]
        return int.from_bytes(width, 'big'), int.from_bytes(height, 'big')
    if content.startswith(b'\xff\xd8'):
        return _read_jpeg_size(content)
    try:
        if content.startswith(_TIFF_STARTS):
            tags = _read_tiff_tags(content)
            return (
                tags[TiffImagePlugin.IMAGEWIDTH],
                tags[TiffImagePlugin.IMAGELENGTH],
            )
        for start, reader in _READERS.items():
            if content.startswith(start):
                with reader(io.BytesIO(content)) as image:
                    size: tuple[int, int] = image.size
                    return size
    except Exception:
        # other bytes raise whatever they happen to mean
        return None
    return None


def _read_jpeg_size(content: bytes) -> tuple[int, int] | None:
    position = 2
    while match := _JPEG_MARKER.search(content, position):
        start = match.end()
        if match[0][1] in _JPEG_FRAMES:
            height = content[start + 3 : start + 5]
            width = content[start + 5 : start + 7]
            return int.from_bytes(width, 'big'), int.from_bytes(height, 'big')
        position = start + int.from_bytes(content[start : start + 2], 'big')
    return None


def _read_tiff_tags(content: bytes) -> Any:
    # PIL's own class refuses kinds of pixels that OpenCV reads
    file = io.BytesIO(content)
    big = content[2:3] == b'+' or content[3:4] == b'+'
    tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if big else 8))
    file.seek(tags.next)
    tags.load(file)
    return tags


def read_orientation(content: bytes) -> int:
    """Read how an image has to be turned to be upright.

    Args:
        content (bytes): Of the file.

    Returns:
        int: The tag of EXIF or TIFF, 1 to 8; 1, as it is stored, where there
        is none.
    """
    try:
        if content.startswith(_TIFF_STARTS):
            return int(_read_tiff_tags(content).get(_ORIENTATION, 1))
        for start, reader in _READERS.items():
            if content.startswith(start):
                with reader(io.BytesIO(content)) as image:
                    return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        # other bytes raise whatever they happen to mean
        return 1
    return 1


def is_tiff(content: bytes) -> bool:
    """Whether a file is a TIFF.

    Args:
        content (bytes): Of the file.

    Returns:
        bool: By its first bytes.
    """
    return content.startswith(_TIFF_STARTS)


def is_truncated(content: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end.

    OpenCV, depending on its version, fills the missing part with gray. Data
    after the end, such as the video of a motion photo, is ignored.

    Args:
        content (bytes): Of the file.

    Returns:
        bool: False for other formats, whose decoders notice.
    """
    if content.startswith(b'\x89PNG'):
        return content.rfind(b'IEND') < 0
    # Most intact files end with the end marker. So does one that was cut
    # after the thumbnail in its header; it has no scan and fails to decode.
    if not content.startswith(b'\xff\xd8') or content.endswith(_JPEG_END):
        return False
    position = 2
    while match := _JPEG_MARKER.search(content, position):
        if match[0] == _JPEG_END:
            return False
        start = match.end()
        # skip the segment, and with it any thumbnail it holds
        position = start + int.from_bytes(content[start : start + 2], 'big')
    return True


def find_damage(content: bytes) -> int | None:
    """Find a row of zero bytes within the data of a JPEG or WebP.

    Neither format has checksums: its decoder makes colors of whatever bytes
    there are. A part that is lost, on a disk or in a download, most often
    reads as zeros, and 32 of them in a row are what no encoder writes:

    - in a WebP they stand for nothing but a row of the least surprising
      values that is far too long for its model;
    - in a sequential JPEG they stand for a row of the shortest Huffman codes.
      Where that code ends a block, the row may be a flat area, and it is not
      reported; elsewhere it would be blocks with the same coefficient
      everywhere.

    Args:
        content (bytes): Of the file.

    Returns:
        int | None: Where the zeros begin; None where none are found, which
        is no proof that nothing is damaged.
    """
    if _ZEROS not in content:
        return None
    if content.startswith(b'\xff\xd8'):
        return _find_zeros_in_jpeg(content)
    if content.startswith(b'RIFF'):
        return _find_zeros_in_webp(content)
    return None


def _find_zeros_in_jpeg(content: bytes) -> int | None:
    position, sequential = 2, False
    # table of AC coefficients -> the symbol whose code is all zeros
    symbols: dict[int, int] = {}
    while match := _JPEG_MARKER.search(content, position):
        marker, start = match[0], match.end()
        if marker == _JPEG_END:
            return None
        position = start + int.from_bytes(content[start : start + 2], 'big')
        segment = content[start + 2 : position]
        if marker in _JPEG_SEQUENTIAL:
            sequential = True
        elif marker == _JPEG_TABLES:
            while len(segment) > 17:
                kind, count = segment[0], sum(segment[1:17])
                if kind >= 16 and count:
                    symbols[kind - 16] = segment[17]
                segment = segment[17 + count :]
        elif marker == _JPEG_SCAN and sequential and segment:
            tables = segment[2 : 1 + 2 * segment[0] : 2]
            # a symbol of 0 ends a block
            if any(symbols.get(table & 15) for table in tables):
                following = _JPEG_MARKER.search(content, position)
                end = following.start() if following else len(content)
                found = content.find(_ZEROS, position, end)
                if found >= 0:
                    return found
    return None


def _find_zeros_in_webp(content: bytes) -> int | None:
    position = 12
    while position + 8 <= len(content):
        name = content[position : position + 4]
        length = int.from_bytes(content[position + 4 : position + 8], 'little')
        start = position + 8
        if name in (b'VP8 ', b'VP8L'):
            found = content.find(_ZEROS, start, start + length)
            return found if found >= 0 else None
        position = start + length + length % 2
    return None
