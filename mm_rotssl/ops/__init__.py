"""Pure functions of tensors, shared by datasets, models and evaluation."""

from .deformation import deform_patches
from .pooling import (
    cells_along,
    pool_cells,
    pool_features,
    pool_to_values,
)
from .rotation import (
    check_rotations,
    check_square,
    noise_weights,
    rotate_batch,
    upright_index,
)
from .sinkhorn import sinkhorn

__all__ = [
    'cells_along',
    'check_rotations',
    'check_square',
    'deform_patches',
    'noise_weights',
    'pool_cells',
    'pool_features',
    'pool_to_values',
    'rotate_batch',
    'sinkhorn',
    'upright_index',
]
