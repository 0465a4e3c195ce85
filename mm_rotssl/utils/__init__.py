from .checkpoint import read_checkpoint
from .config import algorithm_settings
from .config_files import config_summary, find_config, list_configs
from .files import (
    open_arrays,
    replacing,
    save_figure,
    write_arrays,
    write_file,
)
from .fingerprint import fingerprint
from .pretraining import (
    attach_facts,
    preprocessing_of,
    read_facts,
    stride_style,
)
from .weights import other_kind, read_weights

__all__ = [
    'algorithm_settings',
    'attach_facts',
    'config_summary',
    'find_config',
    'fingerprint',
    'list_configs',
    'open_arrays',
    'other_kind',
    'preprocessing_of',
    'read_checkpoint',
    'read_facts',
    'read_weights',
    'replacing',
    'save_figure',
    'stride_style',
    'write_arrays',
    'write_file',
]
