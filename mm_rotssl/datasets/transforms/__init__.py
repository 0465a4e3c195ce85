from .crop import RandomResizedCropFlip
from .deformation import RandomDeformation
from .formatting import PackInputs
from .loading import BrokenImageError, LoadIntactImage
from .rotation import RandomRotationWithLabel
from .rotation_noise import LoadRotationNoise

__all__ = [
    'BrokenImageError',
    'LoadIntactImage',
    'LoadRotationNoise',
    'PackInputs',
    'RandomDeformation',
    'RandomResizedCropFlip',
    'RandomRotationWithLabel',
]
