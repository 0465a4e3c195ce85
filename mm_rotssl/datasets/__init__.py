from .digits import Digits
from .exemplar import ExemplarDataset, SeedPatches, sample_seed_patches
from .image_files import find_images
from .image_folder import ImageFolder
from .image_keys import image_keys, sample_names
from .neighbor_pairs import NeighborPairs
from .neighbors import Neighbors
from .rotation_noise import RotationNoise
from .stacked_dataset import StackedDataset
from .stl10 import STL10
from .transforms import *  # noqa: F403

__all__ = [
    'STL10',
    'Digits',
    'ExemplarDataset',
    'ImageFolder',
    'NeighborPairs',
    'Neighbors',
    'RotationNoise',
    'SeedPatches',
    'StackedDataset',
    'find_images',
    'image_keys',
    'sample_names',
    'sample_seed_patches',
]
