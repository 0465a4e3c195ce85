# SeLa on the embedded digits: about a minute on two cores.
_base_ = [
    '../_base_/models/sela_nin-w24.py',
    '../_base_/datasets/digits_two_views.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.view, dict(type='PackInputs')])
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=20.0)})
)
default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=20))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
    dict(
        type='mm_rotssl.RelabelHook',
        times=10,
        schedule='linear',
        train_mode=True,
    ),
]
