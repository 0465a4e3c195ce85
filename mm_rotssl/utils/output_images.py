"""Images that are results, not input."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from .files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Lists the images of its folder that this package drew, a name a line.
OUTPUT_LIST = '.mm_rotssl_output'


def write_image(path: str | Path, data: bytes) -> None:
    """Write an image, at once, and note beside it that it is a result.

    So no dataset takes it for input, should its folder be among the images.

    Args:
        path (str | Path): The file; its folder is made.
        data (bytes): The content.
    """
    path = Path(path)
    write_file(path, data)
    if path.name not in list_written(path.parent):
        with (path.parent / OUTPUT_LIST).open('ab') as file:
            file.write(path.name.encode(errors='surrogateescape') + b'\n')


def list_written(folder: str | Path) -> set[str]:
    """List what :func:`write_image` has written to a folder.

    Args:
        folder (str | Path): The folder.

    Returns:
        set[str]: Names of files, which may have gone since.
    """
    path = Path(folder) / OUTPUT_LIST
    if not path.is_file():
        return set()
    return set(path.read_bytes().decode(errors='surrogateescape').split('\n'))


def save_figure(figure: 'Figure', path: Path, svg: bool = False) -> Path:
    """Write a figure as PNG, at once, see :func:`write_image`.

    Args:
        figure (Figure): The figure.
        path (Path): The file.
        svg (bool): Write it as SVG, too, beside it and of the same name but
            for the ending. Texts are outlines, so that they look alike
            everywhere, and equal figures are equal files. Defaults to False.

    Returns:
        Path: The file of the PNG.
    """
    # imported late: the command line starts without it
    from matplotlib import rc_context

    data = io.BytesIO()
    # however the user's other figures are saved
    figure.savefig(data, format='png', transparent=False)
    write_image(path, data.getvalue())
    if svg:
        data = io.BytesIO()
        # the ids of elements are random else
        with rc_context({'svg.fonttype': 'path', 'svg.hashsalt': 'figure'}):
            figure.savefig(
                data,
                format='svg',
                metadata={'Date': None},
                transparent=False,
            )
        write_image(path.with_suffix('.svg'), data.getvalue())
    return path
