from .exemplar_dataset import ExemplarDataset
from .seed_patch_sampling import sample_seed_patches
from .seed_patches import SeedPatches

__all__ = ['ExemplarDataset', 'SeedPatches', 'sample_seed_patches']
