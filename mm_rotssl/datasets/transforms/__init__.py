from .crop import RandomResizedCrop
from .formatting import PackInputs
from .loading import BrokenImageError, LoadImageFromFile
from .rotation import RandomRotationWithLabel

__all__ = [
    'BrokenImageError',
    'LoadImageFromFile',
    'PackInputs',
    'RandomResizedCrop',
    'RandomRotationWithLabel',
]
