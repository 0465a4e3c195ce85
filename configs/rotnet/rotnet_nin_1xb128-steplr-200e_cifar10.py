# RotNet on CIFAR-10, the official recipe: NIN with 4 blocks, 200 epochs.
# (The paper trains 100 epochs; the released code, which gives the figures
# that others reproduced, 200.)
_base_ = ['../_base_/datasets/cifar10.py', '../_base_/default_runtime.py']

model = dict(
    type='mm_rotssl.RotNet',
    data_preprocessor=_base_.data_preprocessor,
    # all stages are returned for the kNN accuracy; the head reads the last
    backbone=dict(
        type='mm_rotssl.NIN', num_stages=4, out_indices=(0, 1, 2, 3)
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=192),
)

# 128 images, 512 rotated copies a step; the rate is that of the official
# code, which did not scale it by the number of rotations
optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
# 0.1, 0.02, 0.004, 0.0008
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[60, 120, 160], gamma=0.2
)
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=_base_.reference_dataloader,
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = [
    dict(type='mm_rotssl.RotationAccuracy'),
    dict(type='mm_rotssl.KNNAccuracy'),
]
test_evaluator = val_evaluator
