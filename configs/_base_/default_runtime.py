# Runtime settings shared by all configs. Upstream parts are written bare,
# ours with the prefix `mm_rotssl.`.
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # never without a whole checkpoint
    checkpoint=dict(
        type='mm_rotssl.CheckpointHook', interval=10, max_keep_ckpts=3
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)

custom_hooks = [
    # a resumed run equals one that was never stopped
    dict(type='mm_rotssl.EpochSeedHook'),
    # a checkpoint of another architecture is an error
    dict(type='mm_rotssl.CheckpointCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
    # parameters that no gradient reaches are named
    dict(type='mm_rotssl.GradientCheckHook'),
    # `activation_checkpointing` changes memory and time only
    dict(type='mm_rotssl.ActivationCheckpointHook'),
    # a resumed run obeys its config, not the one of its checkpoint
    dict(type='mm_rotssl.ResumeSettingsHook'),
    # a live bar, if the output is a terminal
    dict(type='mm_rotssl.ProgressBarHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # `tools/train.py` takes gloo where there is no GPU
    dist_cfg=dict(backend='nccl'),
)

visualizer = dict(
    type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
)

log_level = 'INFO'
load_from = None
resume = False

# A random seed is drawn and saved with the checkpoint unless one is set.
randomness = dict(seed=None, deterministic=False)
