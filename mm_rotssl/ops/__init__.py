"""Pure functions of tensors, shared by datasets, models and evaluation."""

from .deformation import deform_patches
from .pooling import pool_cells, pool_features
from .rotation import check_rotations, check_square, rotate_batch
from .sinkhorn import sinkhorn

__all__ = [
    'check_rotations',
    'check_square',
    'deform_patches',
    'pool_cells',
    'pool_features',
    'rotate_batch',
    'sinkhorn',
]
