from mm_rotssl.converters.backbone import Export
from mm_rotssl.evaluation.report_sections import report_tables

from .check_images import CheckedImages, check_images
from .config import merge_options, prepare_cpu_processes, read_config
from .digit_scenes import write_digit_scenes
from .duplicates import Duplicate, duplicate_remarks, find_duplicates
from .embed import Embeddings, embed, write_embeddings
from .entries import Entry, Run, find_entry
from .evaluate import evaluate, stage_remarks
from .evaluation import (
    clusters_tables,
    evaluate_clusters,
    evaluate_svm,
    svm_table,
)
from .export import export
from .neighbors import MinedNeighbors, mine_neighbors
from .networks import (
    NETWORKS,
    build_networks,
    build_ordered_dataloader,
    build_untrained,
    load_network,
    read_labeled_config,
    read_network,
)
from .report_figures import draw_report_figures
from .rotation_noise import NoiseEstimate, estimate_rotation_noise
from .seed_patches import WrittenSeedPatches, write_seed_patches
from .shortcuts import apply_shortcuts, set_crop_size, set_data, set_epochs
from .sort import SortedImages, sort_images
from .test import measure_checkpoint, measured_part
from .train import read_training_config, train_model
from .transfer import compare_transfer, transfer_table

__all__ = [
    'NETWORKS',
    'CheckedImages',
    'Duplicate',
    'Embeddings',
    'Entry',
    'Export',
    'MinedNeighbors',
    'NoiseEstimate',
    'Run',
    'SortedImages',
    'WrittenSeedPatches',
    'apply_shortcuts',
    'build_networks',
    'build_ordered_dataloader',
    'build_untrained',
    'check_images',
    'clusters_tables',
    'compare_transfer',
    'draw_report_figures',
    'duplicate_remarks',
    'embed',
    'estimate_rotation_noise',
    'evaluate',
    'evaluate_clusters',
    'evaluate_svm',
    'export',
    'find_duplicates',
    'find_entry',
    'load_network',
    'measure_checkpoint',
    'measured_part',
    'merge_options',
    'mine_neighbors',
    'prepare_cpu_processes',
    'read_config',
    'read_labeled_config',
    'read_network',
    'read_training_config',
    'report_tables',
    'set_crop_size',
    'set_data',
    'set_epochs',
    'sort_images',
    'stage_remarks',
    'svm_table',
    'train_model',
    'transfer_table',
    'write_digit_scenes',
    'write_embeddings',
    'write_seed_patches',
]
