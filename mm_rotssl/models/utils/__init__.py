from .data_preprocessor import (
    DeformationDataPreprocessor,
    MultiChannelDataPreprocessor,
)
from .dataset_bound import DatasetBound
from .feats import set_feats
from .zero_loss import zero_loss

__all__ = [
    'DatasetBound',
    'DeformationDataPreprocessor',
    'MultiChannelDataPreprocessor',
    'set_feats',
    'zero_loss',
]
