from .config import (
    algorithm_settings,
    prepare_cpu_processes,
    read_config,
)
from .evaluation import (
    NETWORKS,
    block_names,
    build_networks,
    build_ordered_dataloader,
    load_network,
    read_labelled_config,
    versions,
)
from .export import Export, export_backbone
from .features import extract_features

__all__ = [
    'NETWORKS',
    'Export',
    'algorithm_settings',
    'block_names',
    'build_networks',
    'build_ordered_dataloader',
    'export_backbone',
    'extract_features',
    'load_network',
    'prepare_cpu_processes',
    'read_config',
    'read_labelled_config',
    'versions',
]
