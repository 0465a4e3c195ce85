# Fine-tuning with a tenth of ImageNet's labels as by SwAV's official code. Its
# normalization divides red by 0.228; here it is 0.229, as everywhere else.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    '../../../_base_/default_runtime.py',
]

# written by export_backbone.py --to mmpretrain
pretrained = 'work_dirs/backbone.pth'

model = dict(
    backbone=dict(
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    )
)

train_dataloader = dict(dataset=dict(ann_file='meta/train_10percent.txt'))

# the classifier's rate is 0.2
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=20.0)}),
)
param_scheduler = dict(type='MultiStepLR', milestones=[12, 16], gamma=0.2)
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=1)
val_cfg = {}
test_cfg = {}
auto_scale_lr = dict(base_batch_size=256)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.PretrainedCheckHook'),
]
