from .batch_size_check_hook import BatchSizeCheckHook
from .bind_dataset_hook import BindDatasetHook
from .checkpoint_check_hook import CheckpointCheckHook
from .epoch_seed_hook import EpochSeedHook
from .pretrained_check_hook import PretrainedCheckHook
from .progress_bar_hook import ProgressBarHook
from .resume_settings_hook import ResumeSettingsHook
from .task_weight_hook import TaskWeightHook

__all__ = [
    'BatchSizeCheckHook',
    'BindDatasetHook',
    'CheckpointCheckHook',
    'EpochSeedHook',
    'PretrainedCheckHook',
    'ProgressBarHook',
    'ResumeSettingsHook',
    'TaskWeightHook',
]
