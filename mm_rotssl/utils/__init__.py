from .checkpoint import read_checkpoint
from .config import algorithm_settings
from .config_files import config_summary, find_config, list_configs
from .errors import InputError
from .files import (
    open_arrays,
    replacing,
    save_figure,
    write_arrays,
    write_file,
)
from .fingerprint import fingerprint

__all__ = [
    'InputError',
    'algorithm_settings',
    'config_summary',
    'find_config',
    'fingerprint',
    'list_configs',
    'open_arrays',
    'read_checkpoint',
    'replacing',
    'save_figure',
    'write_arrays',
    'write_file',
]
