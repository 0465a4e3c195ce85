from mm_rotssl.converters.backbone import Export
from mm_rotssl.evaluation.features import extract_features

from .config import prepare_cpu_processes, read_config
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
from .sort import SortedImages, sort_images

__all__ = [
    'NETWORKS',
    'Export',
    'NoiseEstimate',
    'SortedImages',
    'WrittenSeedPatches',
    'build_networks',
    'build_ordered_dataloader',
    'estimate_rotation_noise',
    'export',
    'extract_features',
    'load_network',
    'prepare_cpu_processes',
    'read_config',
    'read_labeled_config',
    'sort_images',
    'stage_names',
    'versions',
    'write_digit_scenes',
    'write_seed_patches',
]
