from .dataset_bound import DatasetBound
from .deformation_data_preprocessor import DeformationDataPreprocessor
from .feats import set_feats
from .zero_loss import zero_loss

__all__ = [
    'DatasetBound',
    'DeformationDataPreprocessor',
    'set_feats',
    'zero_loss',
]
