from pathlib import Path
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from .checkpoint import read_checkpoint
from .pretraining import from_safetensors


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read weights from wherever the engine does, without running code.

    Args:
        path (str | Path): A file, ``.safetensors`` or a checkpoint of
            PyTorch, or an address that mmengine knows, such as
            ``torchvision://resnet50``, ``open-mmlab://...`` or
            ``https://...``.

    Returns:
        dict[str, Any]: What was saved, see :func:`read_checkpoint`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an address cannot be read, the file is damaged or holds
            other things than tensors and plain containers, or the package
            ``safetensors`` is missing.
    """
    path = str(path)
    if '://' in path:
        # with the reader that `.checkpoint` has given to the engine
        try:
            return CheckpointLoader.load_checkpoint(path, 'cpu')
        except (ValueError, KeyError, OSError, ImportError) as error:
            raise ValueError(
                f'The weights "{path}" cannot be read: '
                f'{type(error).__name__}: {error}'
            ) from error
    file = Path(path).expanduser()
    if file.suffix != '.safetensors':
        return read_checkpoint(file)
    if not file.is_file():
        raise FileNotFoundError(
            f'The checkpoint "{path}" does not exist (looked from '
            f'"{Path.cwd()}").'
        )
    return from_safetensors(file)


def other_kind(have: torch.Tensor, want: torch.Tensor) -> bool:
    """Tell whether loading would turn numbers into those of another kind.

    The engine copies int8 or complex weights into floating ones without a
    word; the former were to be scaled, the latter lose their imaginary part.
    Another precision is no other kind.

    Args:
        have (Tensor): Of a file.
        want (Tensor): Of the model.

    Returns:
        bool: Whether one is floating or complex and the other is not.

    Examples:
        >>> weight = torch.ones(2)
        >>> other_kind(weight.half(), weight), other_kind(weight.int(), weight)
        (False, True)
    """
    return (have.is_floating_point(), have.is_complex()) != (
        want.is_floating_point(),
        want.is_complex(),
    )
