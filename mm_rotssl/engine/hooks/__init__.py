from .batch_loss_hook import BatchLossHook
from .bind_pictures_hook import BindPicturesHook
from .checkpoint_guard_hook import CheckpointGuardHook
from .epoch_seed_hook import EpochSeedHook
from .pretrained_check_hook import PretrainedCheckHook
from .progress_bar_hook import ProgressBarHook
from .seeds_check_hook import SeedsCheckHook
from .task_weight_hook import TaskWeightHook

__all__ = [
    'BatchLossHook',
    'BindPicturesHook',
    'CheckpointGuardHook',
    'EpochSeedHook',
    'PretrainedCheckHook',
    'ProgressBarHook',
    'SeedsCheckHook',
    'TaskWeightHook',
]
