from mm_rotssl.converters.backbone import Export, export_backbone
from mm_rotssl.evaluation.features import extract_features

from .config import (
    algorithm_settings,
    prepare_cpu_processes,
    read_config,
)
from .evaluation import (
    clusters_tables,
    evaluate,
    evaluate_clusters,
    evaluate_svm,
    evaluation_tables,
    svm_table,
)
from .networks import (
    NETWORKS,
    build_networks,
    build_ordered_dataloader,
    load_network,
    read_labeled_config,
)
from .transfer import compare_transfer, transfer_table

__all__ = [
    'NETWORKS',
    'Export',
    'algorithm_settings',
    'build_networks',
    'build_ordered_dataloader',
    'clusters_tables',
    'compare_transfer',
    'evaluate',
    'evaluate_clusters',
    'evaluate_svm',
    'evaluation_tables',
    'export_backbone',
    'extract_features',
    'load_network',
    'prepare_cpu_processes',
    'read_config',
    'read_labeled_config',
    'svm_table',
    'transfer_table',
]
