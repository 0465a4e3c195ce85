from .crop import RandomResizedCropFlip
from .deformation import RandomDeformation
from .formatting import PackInputs
from .loading import BrokenImageError, LoadIntactImage
from .rotation import RandomRotationWithLabel

__all__ = [
    'BrokenImageError',
    'LoadIntactImage',
    'PackInputs',
    'RandomDeformation',
    'RandomResizedCropFlip',
    'RandomRotationWithLabel',
]
