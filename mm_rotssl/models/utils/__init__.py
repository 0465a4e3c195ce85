from .pooling import pool_features
from .rotation import check_rotations, check_square, rotate_batch

__all__ = [
    'check_rotations',
    'check_square',
    'pool_features',
    'rotate_batch',
]
