# Classification of Pascal VOC 2007 by fine-tuning every layer of AlexNet:
# trained on trainval, tested on test. That much is common to the papers that
# report it; the schedule and the crops are ours, so compare within the recipe.
_base_ = [
    'mmpretrain::_base_/datasets/voc_bs16.py',
    '../../_base_/default_runtime.py',
]

# written by export_backbone.py --to mmpretrain
pretrained = 'work_dirs/backbone.pth'

model = dict(
    type='ImageClassifier',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mm_rotssl.AlexNetBN',
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    # an image may show several classes: one logistic loss each
    head=dict(
        type='MultiLabelLinearClsHead', num_classes=20, in_channels=4096
    ),
)

# where the detectors have it too
data_root = 'data/VOCdevkit/VOC2007'
train_dataloader = dict(
    dataset=dict(data_root=data_root),
    sampler=dict(type='InfiniteSampler', shuffle=True),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.001, momentum=0.9, weight_decay=1e-4)
)
param_scheduler = dict(
    type='MultiStepLR',
    by_epoch=False,
    milestones=[20000, 40000, 60000],
    gamma=0.1,
)
auto_scale_lr = dict(base_batch_size=16)

train_cfg = dict(by_epoch=False, max_iters=80000, val_interval=8000)
val_cfg = {}
test_cfg = {}

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=8000))
log_processor = dict(by_epoch=False)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.PretrainedCheckHook'),
]
