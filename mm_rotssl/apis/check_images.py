"""Which images of a folder can't be trained on, and which are unusual."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from mm_rotssl.datasets import BrokenImageError, LoadIntactImage, find_images
from mm_rotssl.datasets.image_bytes import read_orientation
from mm_rotssl.datasets.transforms.loading import MAX_PIXELS
from mm_rotssl.utils import write_file

# What decoders say of data that is damaged; they say other things, too, such
# as of color profiles. Bytes too many before the end marker (d9) are what
# some cameras write.
DAMAGE = re.compile(
    r'Corrupt JPEG data(?!.*marker 0xd9)|Premature end of JPEG'
    r'|\w+Decode: |Not enough data|[Dd]ecoding error'
)


class CheckedImages(NamedTuple):
    """What :func:`check_images` has found.

    Attributes:
        good (list[str]): Images that can be trained on, paths below the
            folder.
        broken (dict[str, str]): Of each other one what is wrong.
        notes (dict[str, list[str]]): What some good images have in common
            that one should know -> these images.
    """

    good: list[str]
    broken: dict[str, str]
    notes: dict[str, list[str]]


class _Found(NamedTuple):
    path: str
    broken: str
    notes: tuple[str, ...]
    digest: bytes


def check_images(
    folder: str | Path,
    out: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    num_workers: int = 4,
) -> CheckedImages:
    """Look at every image of a folder, more closely than training does.

    Broken are those that :class:`~mm_rotssl.datasets.LoadIntactImage` does
    not read, and those whose decoder complains of damaged data, which
    training does not hear. What no decoder notices stays unknown: PNG has
    checksums; in JPEG and WebP most damages of some length show, in files
    without compression (BMP, PNM, many TIFF) none.

    Args:
        folder (str | Path): Searched with all its sub-folders, see
            :func:`mm_rotssl.datasets.find_images`.
        out (str | Path, optional): File to which the good ones are written,
            a path below the folder a line, as ``ann_file`` of
            :class:`~mm_rotssl.datasets.ImageFolder`. Defaults to None.
        max_pixels (int): See :class:`~mm_rotssl.datasets.LoadIntactImage`.
        num_workers (int): Processes that read. Defaults to 4.

    Returns:
        CheckedImages: What was found.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no image in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f'There is no folder "{folder}" (looked from "{Path.cwd()}").'
        )
    paths = find_images(str(folder))
    if not paths:
        raise ValueError(f'No image was found in "{folder}".')
    loader = DataLoader(
        _Files(str(folder), paths, max_pixels),
        batch_size=None,
        num_workers=min(num_workers, len(paths)),
    )
    good: list[str] = []
    broken: dict[str, str] = {}
    notes: dict[str, list[str]] = {}
    digests: dict[bytes, str] = {}
    for found in track(loader, 'checking', total=len(paths)):
        if found.broken:
            broken[found.path] = found.broken
            continue
        good.append(found.path)
        for note in found.notes:
            notes.setdefault(note, []).append(found.path)
        first = digests.setdefault(found.digest, found.path)
        if first != found.path:
            notes.setdefault('the same file as another', []).append(found.path)
    if out is not None:
        lines = ''.join(f'{path}\n' for path in good)
        write_file(out, lines.encode(errors='surrogateescape'))
    return CheckedImages(good, broken, notes)


class _Files(Dataset):
    """What is found in each file."""

    def __init__(self, folder: str, paths: list[str], limit: int) -> None:
        self.folder = folder
        self.paths = paths
        self.load = LoadIntactImage(to_float32=True, max_pixels=limit)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> _Found:
        path = self.paths[index]
        whole = os.path.join(self.folder, path)
        try:
            with _standard_error() as said:
                self.load(dict(img_path=whole))
        except BrokenImageError as error:
            reason = str(error).removeprefix(f'{whole}: ')
            return _Found(path, reason.partition('\n')[0], (), b'')
        complaint = next(filter(DAMAGE.search, said), None)
        if complaint:
            return _Found(path, f'damaged inside: {complaint}', (), b'')
        content = Path(whole).read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        return _Found(path, '', tuple(_notes(content)), digest)


def _notes(content: bytes) -> Iterator[str]:
    if read_orientation(content) != 1:
        yield 'turned by an orientation tag, which is obeyed'
    image = mmcv.imfrombytes(content, flag='unchanged', backend='cv2')
    if image.dtype == np.uint16:
        bits = int(image.max()).bit_length()
        if 8 < bits <= 12:
            yield (
                f'16 bits a value of which {bits} are used, read as nearly '
                f'black: bit_depth={bits} of LoadIntactImage'
            )
        else:
            yield '16 bits a value, of which 8 are read'
    elif image.dtype != np.uint8:
        yield (
            f'{image.dtype} values: to_float32=True of LoadIntactImage, and '
            'mean and std in their unit'
        )
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels > 3:
        yield (
            f'{channels} channels, of which three are read: '
            "color_type='unchanged' of LoadIntactImage reads all"
        )


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Take in what libraries write there; filled when the block ends."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            lines += file.read().decode(errors='replace').splitlines()
