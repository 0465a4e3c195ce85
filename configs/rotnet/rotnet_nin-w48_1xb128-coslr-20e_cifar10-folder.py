# RotNet on CIFAR-10 pictures in folders, at a size for a machine without a
# GPU: a quarter of the width, a tenth of the epochs.
_base_ = ['../_base_/datasets/cifar10_folder.py', '../_base_/default_runtime.py']

model = dict(
    type='mm_rotssl.RotNet',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=4,
        base_channels=48,
        out_indices=(0, 1, 2, 3)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=48))

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
# so short a run gains from a smooth decay
param_scheduler = dict(
    type='CosineAnnealingLR', T_max=20, by_epoch=True,
    convert_to_iter_based=True)
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=10)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', bank_dataloader=_base_.bank_dataloader)
val_evaluator = [
    dict(type='mm_rotssl.RotationAccuracy'),
    dict(type='mm_rotssl.KNNAccuracy'),
]
