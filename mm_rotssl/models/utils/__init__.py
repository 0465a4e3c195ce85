from .deformation import deform_patches
from .deformation_data_preprocessor import DeformationDataPreprocessor
from .pooling import pool_features, set_feats
from .rotation import check_rotations, check_square, rotate_batch
from .rotation_noise import RotationNoise, noise_weights, upright_index
from .zero_loss import zero_loss

__all__ = [
    'DeformationDataPreprocessor',
    'RotationNoise',
    'check_rotations',
    'check_square',
    'deform_patches',
    'noise_weights',
    'pool_features',
    'rotate_batch',
    'set_feats',
    'upright_index',
    'zero_loss',
]
