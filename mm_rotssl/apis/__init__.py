from mm_rotssl.converters.backbone import Export, export_backbone
from mm_rotssl.evaluation.features import extract_features

from .config import (
    algorithm_settings,
    merge_options,
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
from .shortcuts import apply_shortcuts, set_crop_size, set_data, set_epochs
from .test import measure_checkpoint
from .train import read_training_config, train_model

__all__ = [
    'NETWORKS',
    'Export',
    'algorithm_settings',
    'apply_shortcuts',
    'build_networks',
    'build_ordered_dataloader',
    'export_backbone',
    'extract_features',
    'load_network',
    'measure_checkpoint',
    'merge_options',
    'prepare_cpu_processes',
    'read_config',
    'read_labeled_config',
    'read_training_config',
    'set_crop_size',
    'set_data',
    'set_epochs',
    'stage_names',
    'train_model',
    'versions',
]
