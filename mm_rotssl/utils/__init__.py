from .checkpoint import read_checkpoint
from .config import algorithm_settings
from .files import (
    open_arrays,
    replacing,
    save_figure,
    write_arrays,
    write_file,
)
from .fingerprint import fingerprint

__all__ = [
    'algorithm_settings',
    'fingerprint',
    'open_arrays',
    'read_checkpoint',
    'replacing',
    'save_figure',
    'write_arrays',
    'write_file',
]
