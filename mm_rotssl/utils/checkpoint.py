import re
from pathlib import Path
from typing import Any

import torch


class _Ignored:
    """Stands in for an object of a checkpoint that is of no use here."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# What the engine saves beside tensors and plain containers: the curves of its
# message hub, which hold arrays and, by way of `getattr`, methods. Stand-ins
# of the same names take their place, so nothing of it is ever run.
_IGNORED: list[Any] = [
    type(name, (_Ignored,), {'__module__': module})
    for module, name in (
        ('mmengine.logging.history_buffer', 'HistoryBuffer'),
        ('builtins', 'getattr'),
        ('numpy', 'dtype'),
        ('numpy', 'ndarray'),
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy.core.multiarray', 'scalar'),
        ('numpy._core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', 'scalar'),
    )
]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running code that it may carry.

    A checkpoint is a pickle, and reading one from a stranger can run
    anything. This admits tensors and plain containers; the logged curves of
    the engine are passed over.

    Args:
        path (str | Path): The file.

    Returns:
        dict[str, Any]: What was saved, usually with the weights as
        ``state_dict``; tensors are on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds other objects, or no dictionary.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'The checkpoint "{path}" does not exist (looked from '
            f'"{Path.cwd()}").'
        )
    try:
        with torch.serialization.safe_globals(_IGNORED):
            checkpoint = torch.load(path, 'cpu', weights_only=True)
    except Exception as error:
        # a file of another kind raises whatever its bytes happen to mean
        # The rest of torch's message is advice on how to read it unsafely.
        found = re.search(r'GLOBAL (\S+)', str(error))
        raise ValueError(
            f'The checkpoint "{path}" holds {found[1]}, and reading that '
            'could run code. Save it again with only its "state_dict", on a '
            'machine where you trust it.'
            if found
            else f'The checkpoint "{path}" is damaged or no checkpoint.'
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f'The checkpoint "{path}" holds a {type(checkpoint).__name__}, '
            'not a dictionary of weights.'
        )
    return checkpoint
