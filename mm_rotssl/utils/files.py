import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_file(path: str | Path, data: bytes) -> None:
    """Replace a file at once, so that none is ever there in part.

    Args:
        path (str | Path): The file; its folder is made.
        data (bytes): The content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_figure(figure: 'Figure', path: Path) -> Path:
    """Write a figure as PNG, at once.

    Args:
        figure (Figure): The figure.
        path (Path): The file.

    Returns:
        Path: The same.
    """
    data = io.BytesIO()
    figure.savefig(data, format='png')
    write_file(path, data.getvalue())
    return path
