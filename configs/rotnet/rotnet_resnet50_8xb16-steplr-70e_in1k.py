# RotNet on ImageNet with ResNet-50, the recipe of OpenMMLab's mmselfsup
# 1.0 (linear probe 47.0 there; see the README for its layers). One departure:
# images are read and resized by OpenCV, there by Pillow.
_base_ = ['../_base_/datasets/imagenet.py', '../_base_/default_runtime.py']

model = dict(
    type='mm_rotssl.RotNet',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='SyncBN'),
        # mmpretrain's default is True
        zero_init_residual=False,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mm_rotssl.RotationHead',
        in_channels=2048,
        # mmselfsup's, where the official code has PyTorch's default
        init_cfg=dict(type='Normal', layer='Linear', std=0.01),
    ),
)

# 8 GPUs with 16 images, 64 rotated copies, each
train_dataloader = dict(batch_size=16, num_workers=4)
val_dataloader = dict(batch_size=16, num_workers=4)
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=1e-4)
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.1,
        by_epoch=True,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='MultiStepLR',
        by_epoch=True,
        milestones=[30, 50],
        gamma=0.1,
    ),
]
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=70, val_interval=10)
val_cfg = {}
test_cfg = val_cfg
val_evaluator = dict(type='mm_rotssl.RotationAccuracy')
test_evaluator = val_evaluator
