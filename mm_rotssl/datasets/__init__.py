from .digits import Digits
from .exemplar_dataset import ExemplarDataset
from .exemplar_seeds import ExemplarSeeds
from .image_folder import ImageFolder
from .picture_keys import picture_keys
from .seed_sampling import sample_seeds
from .stl10 import STL10
from .task_dataset import TaskDataset
from .transforms import *  # noqa: F403

__all__ = [
    'STL10',
    'Digits',
    'ExemplarDataset',
    'ExemplarSeeds',
    'ImageFolder',
    'TaskDataset',
    'picture_keys',
    'sample_seeds',
]
