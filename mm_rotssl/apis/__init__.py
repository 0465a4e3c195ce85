from mm_rotssl.converters.backbone import Export
from mm_rotssl.evaluation.features import extract_features

from .config import merge_options, prepare_cpu_processes, read_config
from .digit_scenes import write_digit_scenes
from .evaluation import (
    NETWORKS,
    build_networks,
    build_ordered_dataloader,
    load_network,
    read_labeled_config,
    stage_names,
    versions,
)
from .export import export
from .rotation_noise import NoiseEstimate, estimate_rotation_noise
from .seed_patches import WrittenSeedPatches, write_seed_patches
from .shortcuts import apply_shortcuts, set_crop_size, set_data, set_epochs
from .sort import SortedImages, sort_images
from .test import measure_checkpoint
from .train import read_training_config, train_model

__all__ = [
    'NETWORKS',
    'Export',
    'NoiseEstimate',
    'SortedImages',
    'WrittenSeedPatches',
    'apply_shortcuts',
    'build_networks',
    'build_ordered_dataloader',
    'estimate_rotation_noise',
    'export',
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
    'sort_images',
    'stage_names',
    'train_model',
    'versions',
    'write_digit_scenes',
    'write_seed_patches',
]
