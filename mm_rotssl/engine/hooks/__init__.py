from .bind_pictures_hook import BindPicturesHook
from .checkpoint_guard_hook import CheckpointGuardHook
from .epoch_seed_hook import EpochSeedHook
from .num_seeds_check_hook import NumSeedsCheckHook
from .progress_bar_hook import ProgressBarHook

__all__ = [
    'BindPicturesHook',
    'CheckpointGuardHook',
    'EpochSeedHook',
    'NumSeedsCheckHook',
    'ProgressBarHook',
]
