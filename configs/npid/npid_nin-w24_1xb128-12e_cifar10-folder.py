# Instance discrimination on CIFAR-10 images in folders, at a size for a machine
# without a GPU: as many images go through the network as with two views for
# half as many epochs.
_base_ = [
    '../_base_/models/npid_nin-w24.py',
    '../_base_/datasets/cifar10_folder_two_views.py',
    '../_base_/schedules/adamw_coslr_6e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            *_base_.view,
            dict(type='PackInputs'),
        ]
    )
)
train_cfg = dict(max_epochs=12, val_interval=12)
default_hooks = dict(logger=dict(interval=13), checkpoint=dict(interval=12))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
]
