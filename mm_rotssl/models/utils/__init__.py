from .data_preprocessor import DeformationDataPreprocessor
from .feats import set_feats
from .zero_loss import zero_loss

__all__ = ['DeformationDataPreprocessor', 'set_feats', 'zero_loss']
