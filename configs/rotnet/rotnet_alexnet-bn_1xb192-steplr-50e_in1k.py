# RotNet on ImageNet with AlexNet, the official recipe. (The paper trains 30
# epochs; the released code 50, with better probes.)
_base_ = ['../_base_/datasets/imagenet.py', '../_base_/default_runtime.py']

model = dict(
    type='mm_rotssl.RotNet',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(type='mm_rotssl.AlexNetBN'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=4096),
)

# The official config says lr=0.1, which its table of rates replaces before
# the first step: 0.01, 0.001, 1e-4, 1e-5.
optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[15, 30, 45], gamma=0.1
)
auto_scale_lr = dict(base_batch_size=192)

train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=5)
val_cfg = {}
test_cfg = val_cfg
val_evaluator = dict(type='mm_rotssl.RotationAccuracy')
test_evaluator = val_evaluator

default_hooks = dict(checkpoint=dict(interval=1))
