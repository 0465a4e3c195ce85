from .checkpoint import read_checkpoint
from .config import prepare_cpu_processes, read_config
from .evaluation import (
    NETWORKS,
    block_names,
    build_networks,
    build_ordered_dataloader,
    load_network,
    read_labelled_config,
    versions,
)
from .features import extract_features

__all__ = [
    'NETWORKS',
    'block_names',
    'build_networks',
    'build_ordered_dataloader',
    'extract_features',
    'load_network',
    'prepare_cpu_processes',
    'read_checkpoint',
    'read_config',
    'read_labelled_config',
    'versions',
]
