# The non-linear probe of RotNet's CIFAR-10 table: stage 2, frozen, under
# three linear layers. Run with
#   --cfg-options model.backbone.init_cfg.checkpoint=<rotnet checkpoint>
_base_ = [
    '../../_base_/datasets/cifar10.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=10,
        mean=_base_.data_preprocessor.mean,
        std=_base_.data_preprocessor.std,
    ),
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=4,
        out_indices=1,
        frozen_stages=3,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(type='mm_rotssl.FlattenNeck'),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=10,
        in_channels=192 * 8 * 8,
        mid_channels=[200, 200],
        norm_cfg=dict(type='BN1d'),
        init_cfg=dict(
            type='Kaiming', layer='Linear', mode='fan_out', nonlinearity='relu'
        ),
    ),
)

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
# 0.1, 0.02, 0.004, 0.0008; then constant to the end
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[20, 40, 45], gamma=0.2
)
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
val_cfg = {}
test_cfg = val_cfg
# The official code keeps the best epoch on the test set; report the last.
val_evaluator = dict(type='Accuracy')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
