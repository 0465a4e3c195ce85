"""Which files of a folder are images."""

import os
from collections.abc import Iterator, Sequence

from mmengine.fileio import get_file_backend

from mm_rotssl.utils import list_written

EXTENSIONS = (
    '.jpg',
    '.jpeg',
    '.png',
    '.bmp',
    '.webp',
    '.tif',
    '.tiff',
    '.ppm',
    '.pgm',
)
# what systems and tools make in folders of images: unpacked archives of a
# Mac, thumbnails and waste of network drives, Windows and Linux, and the
# engine's work directories
LEFT_OUT = frozenset(
    (
        '__macosx',
        '@eadir',
        '#recycle',
        '$recycle.bin',
        'system volume information',
        'lost+found',
        'work_dirs',
    )
)


def find_images(
    folder: str, extensions: Sequence[str] = EXTENSIONS
) -> list[str]:
    """Find the images of a folder and all its sub-folders.

    An image is a file with one of the extensions, in upper or lower case.
    Links are followed, but not into a folder that they are in. Left out are

    - files and folders whose name begins with a dot, such as a Mac's
      ``._1.jpg``, ``.Trash``, ``.thumbnails`` and ``.ipynb_checkpoints``;
    - the folders of ``LEFT_OUT``, in upper or lower case;
    - what this package drew itself: figures, and the pages of
      :func:`mm_rotssl.apis.sort_images`, which are listed beside them in
      ``.mm_rotssl_output``.

    Args:
        folder (str): The folder, which is not itself judged by its name.
        extensions (Sequence[str]): In lower case.

    Returns:
        list[str]: Paths below the folder, with slashes, sorted.
    """
    return sorted(_walk(folder, '', tuple(extensions), ()))


def find_class_folders(
    folder: str, extensions: Sequence[str] = EXTENSIONS
) -> dict[str, list[str]]:
    """Find the images of each class, which are the sub-folders of a folder.

    Args:
        folder (str): The folder.
        extensions (Sequence[str]): In lower case.

    Returns:
        dict[str, list[str]]: Name of each class, sorted -> the paths of its
        images below its folder, see :func:`find_images`. A folder which
        holds nothing but results of this package is no class.
    """
    backend = get_file_backend(folder, enable_singleton=True)
    names = backend.list_dir_or_file(folder, list_file=False)
    found = {}
    for name in sorted(filter(_counts, names)):
        path = backend.join_path(folder, name)
        images = find_images(path, extensions)
        if images or not list_written(path):
            found[name] = images
    return found


def _counts(name: str) -> bool:
    return not name.startswith('.') and name.lower() not in LEFT_OUT


def _walk(
    folder: str,
    below: str,
    extensions: tuple[str, ...],
    above: tuple[str, ...],
) -> Iterator[str]:
    backend = get_file_backend(folder, enable_singleton=True)
    real = os.path.realpath(folder)
    if real in above:
        # a link to a folder that it is in
        return
    own = list_written(folder)
    for name in backend.list_dir_or_file(folder, list_dir=False):
        if (
            _counts(name)
            and name.lower().endswith(extensions)
            and name not in own
        ):
            yield below + name
    for name in backend.list_dir_or_file(folder, list_file=False):
        if _counts(name):
            yield from _walk(
                backend.join_path(folder, name),
                f'{below}{name}/',
                extensions,
                (*above, real),
            )
