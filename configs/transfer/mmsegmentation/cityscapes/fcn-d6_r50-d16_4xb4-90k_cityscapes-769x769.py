# FCN with a stride of 16 on Cityscapes.
# The protocol of MoCo (He et al., CVPR 2020, appendix): 90,000 steps of 16
# images.
_base_ = 'mmseg::fcn/fcn-d6_r50-d16_4xb2-40k_cityscapes-769x769.py'

pretrained = 'work_dirs/backbone.pth'

crop_size = (769, 769)
data_preprocessor = dict(size=crop_size)
model = dict(
    data_preprocessor=data_preprocessor,
    # it would take the place of init_cfg
    pretrained=None,
    backbone=dict(
        # ResNetV1c of the base begins with three convolutions that no
        # checkpoint has
        type='ResNet',
        # dilation 2 in all of the last stage
        contract_dilation=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    # two 3x3 convolutions of 256 channels, then the classifier
    decode_head=dict(
        channels=256,
        concat_input=False,
    ),
    auxiliary_head=None,
    # the whole image at once, not windows
    test_cfg=dict(_delete_=True, mode='whole'),
)

# scale, crop and flip; no distortion of colors
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        # their own size
        scale=(2048, 1024),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
# tested at the size that the images have
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=0.0001))
# a tenth after 70 and after 90 percent of the steps
param_scheduler = [
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[63000, 81000],
        gamma=0.1,
    )
]
train_cfg = dict(max_iters=90000, val_interval=9000)
default_hooks = dict(checkpoint=dict(interval=9000))
auto_scale_lr = dict(base_batch_size=16)

custom_hooks = [
    dict(type='mm_rotssl.PretrainedCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
