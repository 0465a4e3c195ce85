from .digits import Digits
from .image_folder import ImageFolder
from .transforms import *  # noqa: F403

__all__ = ['Digits', 'ImageFolder']
