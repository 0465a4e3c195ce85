from .crop import RandomResizedCrop
from .deformation import RandomDeformation
from .formatting import PackInputs
from .loading import BrokenImageError, LoadImageFromFile
from .rotation import RandomRotationWithLabel

__all__ = [
    'BrokenImageError',
    'LoadImageFromFile',
    'PackInputs',
    'RandomDeformation',
    'RandomResizedCrop',
    'RandomRotationWithLabel',
]
