from .activation_checkpoint_hook import ActivationCheckpointHook
from .batch_size_check_hook import BatchSizeCheckHook
from .bind_dataset_hook import BindDatasetHook
from .checkpoint_check_hook import CheckpointCheckHook
from .checkpoint_hook import CheckpointHook
from .divergence_check_hook import DivergenceCheckHook
from .epoch_seed_hook import EpochSeedHook
from .gradient_check_hook import GradientCheckHook
from .online_linear_probe_hook import OnlineLinearProbeHook
from .pretrained_check_hook import PretrainedCheckHook
from .progress_bar_hook import ProgressBarHook
from .relabel_hook import RelabelHook
from .resume_settings_hook import ResumeSettingsHook
from .task_weight_hook import TaskWeightHook

__all__ = [
    'ActivationCheckpointHook',
    'BatchSizeCheckHook',
    'BindDatasetHook',
    'CheckpointCheckHook',
    'CheckpointHook',
    'DivergenceCheckHook',
    'EpochSeedHook',
    'GradientCheckHook',
    'OnlineLinearProbeHook',
    'PretrainedCheckHook',
    'ProgressBarHook',
    'RelabelHook',
    'ResumeSettingsHook',
    'TaskWeightHook',
]
