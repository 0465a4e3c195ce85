from .checkpoint import read_checkpoint
from .config_files import config_summary, find_config, list_configs
from .files import open_arrays, save_figure, write_arrays, write_file
from .fingerprint import fingerprint

__all__ = [
    'config_summary',
    'find_config',
    'fingerprint',
    'list_configs',
    'open_arrays',
    'read_checkpoint',
    'save_figure',
    'write_arrays',
    'write_file',
]
