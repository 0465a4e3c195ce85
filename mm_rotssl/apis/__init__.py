from .checkpoint import read_checkpoint
from .config import prepare_cpu_processes, read_config
from .features import extract_features

__all__ = [
    'extract_features',
    'prepare_cpu_processes',
    'read_checkpoint',
    'read_config',
]
