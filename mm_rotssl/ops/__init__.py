"""Pure functions of tensors, shared by datasets, models and evaluation."""

from .deformation import deform_patches
from .kmeans import kmeans
from .pooling import (
    at_least_float32,
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
from .sobel import sobel
from .whitening import whiten

__all__ = [
    'at_least_float32',
    'cells_along',
    'check_rotations',
    'check_square',
    'deform_patches',
    'kmeans',
    'noise_weights',
    'pool_cells',
    'pool_features',
    'pool_to_values',
    'rotate_batch',
    'sinkhorn',
    'sobel',
    'upright_index',
    'whiten',
]
