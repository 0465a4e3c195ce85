from .loading import BrokenImageError, LoadImageFromFile
from .rotation import RandomRotationWithLabel

__all__ = ['BrokenImageError', 'LoadImageFromFile', 'RandomRotationWithLabel']
