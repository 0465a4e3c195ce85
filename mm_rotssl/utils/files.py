import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Replace a file at once, so that none is ever there in part.

    If the ``with`` block raises, what was there before stays. What a process
    that was killed while it wrote the same file has left is removed.

    Args:
        path (str | Path): The file; its folder is made.

    Yields:
        Path: Where to write, a file beside it with the same suffix, which
        takes its place at the end of the block.

    Raises:
        OSError: If it can't be written, such as on a full disk; the message
            names the file.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        try:
            yield temporary
            # on the disk before its name is: a crash leaves the old or this
            with open(temporary, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # writing has no name, or one that the user does not know
        if error.errno is None or error.filename not in (
            None,
            str(temporary),
            str(path.parent),
        ):
            raise
        raise type(error)(
            f'"{path}" can\'t be written: {error.strerror}.'
        ) from error


def _remove_leftovers(path: Path) -> None:
    for file in path.parent.glob(f'.{glob.escape(path.stem)}.*'):
        process = file.name.removeprefix(f'.{path.stem}.')
        process = process.removesuffix(path.suffix)
        if (
            file.suffix == path.suffix
            and process.isdecimal()
            and not _is_running(int(process))
        ):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    # there, asking is ending it
    if os.name == 'nt':
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # of another user
        pass
    return True


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file, at once.

    Args:
        path (str | Path): The file; its folder is made.
        data (bytes): The content.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_arrays(path: str | Path, **arrays: Any) -> None:
    """Write a ``.npz`` file, at once.

    Args:
        path (str | Path): The file.
        **arrays (Any): What it holds; no Python objects.
    """
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        np.savez_compressed(file, **arrays)


@contextmanager
def open_arrays(
    path: str | Path, what: str, tool: str, remedy: str
) -> Iterator[Any]:
    """Read a ``.npz`` file without running code that it may carry.

    Whatever goes wrong within the ``with`` block counts as a fault of the
    file.

    Args:
        path (str | Path): The file.
        what (str): What it should hold, for messages.
        tool (str): The script that writes such files.
        remedy (str): What else to do when there is none.

    Yields:
        Any: Name -> array.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read as what it should be.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'There is no file "{path}" of {what} (looked from '
            f'"{Path.cwd()}"). Make it with {tool}, or {remedy}.'
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except Exception as error:
        # other bytes raise whatever they happen to mean
        raise ValueError(
            f'"{path}" is no file of {what} as {tool} writes it: {error}'
        ) from error
