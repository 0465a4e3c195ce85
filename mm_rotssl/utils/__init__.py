from .checkpoint import (
    checkpoint_bytes,
    newest_checkpoint,
    nonfinite_names,
    read_checkpoint,
)
from .config import algorithm_settings
from .config_files import config_summary, find_config, list_configs
from .errors import InputError
from .files import (
    open_arrays,
    replacing,
    write_arrays,
    write_file,
)
from .fingerprint import fingerprint
from .output_images import list_written, save_figure, write_image

__all__ = [
    'InputError',
    'algorithm_settings',
    'checkpoint_bytes',
    'config_summary',
    'find_config',
    'fingerprint',
    'list_configs',
    'list_written',
    'newest_checkpoint',
    'nonfinite_names',
    'open_arrays',
    'read_checkpoint',
    'replacing',
    'save_figure',
    'write_arrays',
    'write_file',
    'write_image',
]
