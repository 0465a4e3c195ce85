# DeepCluster-v2 on CIFAR-10 images in folders, at a size for a machine without
# a GPU.
_base_ = [
    '../_base_/models/deepcluster-v2_nin-w24.py',
    '../_base_/datasets/cifar10_folder_two_views.py',
    '../_base_/schedules/adamw_coslr_6e.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(logger=dict(interval=13), checkpoint=dict(interval=6))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
    dict(type='mm_rotssl.RelabelHook', train_mode=True),
]
