from .digits import Digits
from .image_folder import ImageFolder
from .picture_keys import picture_keys
from .transforms import *  # noqa: F403

__all__ = ['Digits', 'ImageFolder', 'picture_keys']
