from .checkpoint import read_checkpoint
from .files import open_arrays, save_figure, write_arrays, write_file
from .fingerprint import fingerprint

__all__ = [
    'fingerprint',
    'open_arrays',
    'read_checkpoint',
    'save_figure',
    'write_arrays',
    'write_file',
]
