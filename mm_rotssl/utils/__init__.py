from .checkpoint import (
    checkpoint_bytes,
    newest_checkpoint,
    nonfinite_names,
    read_checkpoint,
)
from .config import algorithm_settings, parse_config_text
from .config_files import config_summary, find_config, list_configs
from .errors import InputError
from .files import (
    open_arrays,
    replacing,
    write_arrays,
    write_file,
)
from .fingerprint import fingerprint
from .model_wrapper import unwrap_model
from .output_images import list_written, save_figure, write_image
from .pretraining import (
    attach_facts,
    preprocessing_of,
    read_facts,
    stride_style,
)
from .weights import other_kind, read_weights

__all__ = [
    'InputError',
    'algorithm_settings',
    'attach_facts',
    'checkpoint_bytes',
    'config_summary',
    'find_config',
    'fingerprint',
    'list_configs',
    'list_written',
    'newest_checkpoint',
    'nonfinite_names',
    'open_arrays',
    'other_kind',
    'parse_config_text',
    'preprocessing_of',
    'read_checkpoint',
    'read_facts',
    'read_weights',
    'replacing',
    'save_figure',
    'stride_style',
    'unwrap_model',
    'write_arrays',
    'write_file',
    'write_image',
]
