import io
import logging
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader

from .errors import InputError


# What a checkpoint holds beside tensors and plain containers is read into
# stand-ins: NumPy's own functions follow whatever a file says of its memory,
# and `getattr` leads anywhere.
class _PassedOver:
    """Stands in for an object of a checkpoint that is of no use here."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Method(_PassedOver):
    """Stands in for ``getattr``, by which a pickle names a method.

    The engine saves methods with its curves and with a schedule. It does not
    need them back.
    """

    def __init__(self, owner: Any, name: str) -> None:
        if owner not in _OWNERS:
            raise pickle.UnpicklingError(f'GLOBAL getattr of {owner}')


class _Settings:
    """Stands in for the engine's dictionary of settings."""

    def __new__(cls, content: dict) -> Any:
        return dict(content)


class _Dtype:
    """Stands in for ``numpy.dtype``: of numbers and texts, no objects."""

    def __init__(self, name: str, *args: Any) -> None:
        if not re.fullmatch(r'[biufcUS]\d+', name):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({name!r})')
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for the function that makes an array, and for its array."""

    array: np.ndarray

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        array = np.frombuffer(content, dtype.dtype)
        self.array = array.reshape(shape, order='F' if is_fortran else 'C')


class _Scalar:
    """Stands in for the function that makes a scalar."""

    def __new__(cls, dtype: _Dtype, content: bytes) -> Any:
        return np.frombuffer(content, dtype.dtype)[0]


class _Curve:
    """Stands in for a curve of the engine's message hub."""

    state: dict[str, Any]

    def __setstate__(self, state: dict) -> None:
        self.state = state


def _stand_in(base: type, module: str, name: str) -> Any:
    return type(name, (base,), {'__module__': module})


_OWNERS = [
    _stand_in(_Curve, 'mmengine.logging.history_buffer', 'HistoryBuffer'),
    _stand_in(
        _PassedOver,
        'mmengine.optim.scheduler.param_scheduler',
        'OneCycleParamScheduler',
    ),
]
_STAND_INS = [
    *_OWNERS,
    _stand_in(_Method, 'builtins', 'getattr'),
    _stand_in(_Settings, 'mmengine.config.config', 'ConfigDict'),
    # the command line of many other codes
    _stand_in(_PassedOver, 'argparse', 'Namespace'),
    _stand_in(_Dtype, 'numpy', 'dtype'),
    _stand_in(_PassedOver, 'numpy', 'ndarray'),
    # NumPy 1 and 2
    *(
        _stand_in(base, module, name)
        for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
        for base, name in ((_Array, '_reconstruct'), (_Scalar, 'scalar'))
    ),
]


def _global_name(admitted: Any) -> str:
    if isinstance(admitted, tuple):
        return str(admitted[1])
    return f'{admitted.__module__}.{admitted.__name__}'


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Admit the stand-ins, and what the user has declared to be safe.

    The engine declares the real objects of these names.
    """
    declared = torch.serialization.get_safe_globals()
    names = {_global_name(stand_in) for stand_in in _STAND_INS}
    others = [item for item in declared if _global_name(item) not in names]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*others, *_STAND_INS])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(declared)


def _replace_stand_ins(value: Any, seen: set[int]) -> Any:
    if isinstance(value, _Array):
        return value.array.copy()
    if isinstance(value, _Curve):
        state = _replace_stand_ins(value.state, seen)
        return HistoryBuffer(
            state['_log_history'], state['_count_history'], state['max_length']
        )
    # In place, since a state_dict has attributes.
    if isinstance(value, tuple):
        items = tuple(_replace_stand_ins(item, seen) for item in value)
        # torch.Size is a tuple, too
        return items if type(value) is tuple else value
    if isinstance(value, dict | list) and id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, list):
            value[:] = [_replace_stand_ins(item, seen) for item in value]
            return value
        for key, item in list(value.items()):
            if isinstance(item, _PassedOver):
                del value[key]
            else:
                value[key] = _replace_stand_ins(item, seen)
    return value


def _check_file(file: IO[bytes], source: str | Path) -> None:
    """Look at a file before anything is made of its content."""
    # PyTorch 2.5 can't read this format of before 2017 safely, 2.6 does not.
    # Zeros, which a crash may leave, are an empty archive.
    zeros = not any(file.read(tarfile.BLOCKSIZE))
    file.seek(0)
    if not zeros and tarfile.is_tarfile(file):
        raise InputError(
            f'The checkpoint "{source}" is a tar archive, and reading that '
            'could run code.'
        )
    file.seek(0)
    if zipfile.is_zipfile(file):
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged:
            raise InputError(
                f'The checkpoint "{source}" is damaged: {damaged} in it does '
                'not have its checksum.'
            )
    file.seek(0)


def _read(
    file: IO[bytes], source: str | Path, map_location: Any
) -> dict[str, Any]:
    """Read an open file, which messages call ``source``."""
    try:
        _check_file(file, source)
        with _stand_ins():
            checkpoint = torch.serialization.load(
                file, map_location, weights_only=True
            )
        checkpoint = _replace_stand_ins(checkpoint, set())
    except InputError:
        raise
    except Exception as error:
        # a file of another kind raises whatever its bytes happen to mean
        # The rest of torch's message is advice on how to read it unsafely.
        found = re.search(r'GLOBAL (\S+)', str(error))
        raise InputError(
            f'The checkpoint "{source}" holds {found[1]}, and reading that '
            'could run code. Save it again with only its "state_dict", on a '
            'machine where you trust it.'
            if found
            else f'The checkpoint "{source}" is damaged or no checkpoint.'
        ) from error
    if not isinstance(checkpoint, dict):
        raise InputError(
            f'The checkpoint "{source}" holds a {type(checkpoint).__name__}, '
            'not a dictionary of weights.'
        )
    return checkpoint


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running code that it may carry.

    A checkpoint is a pickle, and reading one from a stranger can run
    anything. This admits tensors, plain containers, arrays of numbers and
    texts, and the curves of the engine's message hub, which are built anew
    from their numbers. Methods, and the settings of other codes, are passed
    over. If the file has checksums, its content must fit them.

    The engine reads in the same way as soon as this module is imported,
    wherever a checkpoint is from: ``load_from``, ``resume`` and
    ``init_cfg=dict(type='Pretrained', ...)``.

    Args:
        path (str | Path): The file.

    Returns:
        dict[str, Any]: What was saved, usually with the weights as
        ``state_dict``; tensors are on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is damaged, holds other objects, or no dictionary.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'The checkpoint "{path}" does not exist (looked from '
            f'"{Path.cwd()}").'
        )
    with open(path, 'rb') as file:
        return _read(file, path, 'cpu')


def nonfinite_names(tensors: Mapping[str, Any]) -> list[str]:
    """List what has NaN or infinity.

    Args:
        tensors (Mapping[str, Any]): Name -> tensor; what is none is left out.

    Returns:
        list[str]: The names, in their order.

    Examples:
        >>> nonfinite_names({'a': torch.ones(2), 'b': torch.ones(2) / 0})
        ['b']
    """
    return [
        name
        for name, value in tensors.items()
        if isinstance(value, torch.Tensor) and not value.isfinite().all()
    ]


def newest_checkpoint(work_dir: str | Path) -> str | None:
    """Find the checkpoint that a run in a folder is to go on from.

    The one that ``last_checkpoint`` names. If that is gone or damaged, the
    one with the largest number of those beside it that are whole; a warning
    says so.

    Args:
        work_dir (str | Path): Of the run.

    Returns:
        str | None: Its path, or None if nothing was saved yet.

    Raises:
        InputError: If none is whole.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    # on a remote storage
    if '://' in named:
        return named
    own = Path(work_dir) / Path(named).name
    # a folder may have been copied, and goes on from what is its own
    if named and own.is_file():
        named = str(own)
    if named and _is_whole(Path(named)):
        return named
    # or moved
    folders = {Path(work_dir), Path(named).parent if named else Path(work_dir)}
    found = [
        (int(match[1]), file.stat().st_mtime, str(file))
        for folder in folders
        if folder.is_dir()
        for file in folder.iterdir()
        if (match := re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', file.name))
    ]
    if not (named or found):
        return None
    what = (
        f'The last checkpoint "{named}" is '
        + ('damaged' if Path(named).is_file() else 'gone')
        if named
        else f'"{pointer}" names no checkpoint'
    )
    for *_, file in sorted(found, reverse=True):
        if _is_whole(Path(file)):
            print_log(
                f'{what}: going on from "{file}", the newest whole one.',
                'current',
                logging.WARNING,
            )
            return file
    raise InputError(
        f'{what}, and no other in "{work_dir}" is whole. To start anew, leave '
        'out --resume.'
    )


def _is_whole(path: Path) -> bool:
    """Tell whether a file was written to its end, and has not changed."""
    if not path.is_file():
        return False
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
    except Exception:
        # damage shows in many ways
        return False
    with open(path, 'rb') as file:
        # the beginning of what PyTorch wrote before 1.6, without checksums
        return file.read(2) == b'\x80\x02'


def checkpoint_bytes(checkpoint: dict[str, Any]) -> bytes:
    """Make the content of a checkpoint file.

    Where ``torch.save`` writes to a file itself, a full disk ends in a text
    about positions.

    Args:
        checkpoint (dict[str, Any]): Tensors and plain containers.

    Returns:
        bytes: To be written.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    return content.getvalue()


def _safely(loader: Callable) -> Callable:
    """Make a loader of the engine read as :func:`read_checkpoint` does."""

    @wraps(loader)
    def load(filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        def read(file: Any, map_location: Any = None, **_: Any) -> Any:
            if hasattr(file, 'read'):
                return _read(file, filename, map_location)
            with open(file, 'rb') as opened:
                return _read(opened, filename, map_location)

        # the end of every way, after a download or from a storage
        original = torch.load
        torch.load = read  # type: ignore[assignment]
        try:
            checkpoint: dict[str, Any] = loader(filename, *args, **kwargs)
        finally:
            torch.load = original
        # a text that the engine runs as Python when it resumes
        if isinstance(checkpoint.get('meta'), dict):
            checkpoint['meta'].pop('config', None)
        return checkpoint

    return load


for _prefix, _loader in list(CheckpointLoader._schemes.items()):
    CheckpointLoader.register_scheme(_prefix, _safely(_loader), force=True)
