from .crop import RandomResizedCrop
from .deformation import RandomDeformation
from .formatting import PackInputs
from .loading import BrokenImageError, LoadImageFromFile
from .rotation import RandomRotationWithLabel
from .rotation_noise import LoadRotationNoise

__all__ = [
    'BrokenImageError',
    'LoadImageFromFile',
    'LoadRotationNoise',
    'PackInputs',
    'RandomDeformation',
    'RandomResizedCrop',
    'RandomRotationWithLabel',
]
