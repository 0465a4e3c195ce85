from .data_preprocessor import (
    DeformationDataPreprocessor,
    MultiChannelDataPreprocessor,
    SobelDataPreprocessor,
)
from .dataset_bound import DatasetBound
from .feats import set_feats
from .labelers import KMeansLabeler, SinkhornLabeler
from .processes import (
    check_batch_sizes,
    cluster_usage,
    gather_rows,
    mean_over_processes,
)
from .zero_loss import zero_loss

__all__ = [
    'DatasetBound',
    'DeformationDataPreprocessor',
    'KMeansLabeler',
    'MultiChannelDataPreprocessor',
    'SinkhornLabeler',
    'SobelDataPreprocessor',
    'check_batch_sizes',
    'cluster_usage',
    'gather_rows',
    'mean_over_processes',
    'set_feats',
    'zero_loss',
]
