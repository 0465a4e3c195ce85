# Linear evaluation of each stage on Places205, the recipe of mmselfsup.
_base_ = [
    '../_base_/resnet50_mhead.py',
    '../../../_base_/datasets/places205.py',
    '../../../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=205))

param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[7, 14, 21], gamma=0.1
)
train_cfg = dict(by_epoch=True, max_epochs=28)
val_evaluator = dict(type='mm_rotssl.StageAccuracy', topk=(1, 5))
test_evaluator = val_evaluator

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.PretrainedCheckHook'),
]
