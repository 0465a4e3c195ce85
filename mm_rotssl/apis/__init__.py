from mm_rotssl.converters.backbone import Export, export_backbone
from mm_rotssl.evaluation.features import extract_features

from .config import (
    algorithm_settings,
    prepare_cpu_processes,
    read_config,
)
from .evaluation import (
    NETWORKS,
    build_networks,
    build_ordered_dataloader,
    load_network,
    read_labeled_config,
    stage_names,
    versions,
)

__all__ = [
    'NETWORKS',
    'Export',
    'algorithm_settings',
    'build_networks',
    'build_ordered_dataloader',
    'export_backbone',
    'extract_features',
    'load_network',
    'prepare_cpu_processes',
    'read_config',
    'read_labeled_config',
    'stage_names',
    'versions',
]
