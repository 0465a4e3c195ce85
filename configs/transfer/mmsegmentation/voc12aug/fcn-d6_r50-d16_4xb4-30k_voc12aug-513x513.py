# FCN with a stride of 16 on Pascal VOC 2012 with the extra annotations.
# The protocol of MoCo (He et al., CVPR 2020, appendix): 30,000 steps of 16
# images.
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'

pretrained = 'work_dirs/backbone.pth'

crop_size = (513, 513)
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
        dilations=(1, 1, 1, 2),
        strides=(1, 2, 2, 1),
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    # two 3x3 convolutions of 256 channels, then the classifier
    decode_head=dict(
        channels=256,
        concat_input=False,
        dilation=6,
        # for sizes of 2^n + 1, as mmseg's own with this head
        align_corners=True,
    ),
    auxiliary_head=None,
)

# scale, crop and flip; no distortion of colors
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        # the longer side of all of these images, so that the ratio is
        # that to their own size
        scale=(500, 500),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=crop_size),
    dict(type='PackSegInputs'),
]
# tested at the size that the images have
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(_base_.dataset_train, pipeline=train_pipeline),
            dict(_base_.dataset_aug, pipeline=train_pipeline),
        ]
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=0.003, weight_decay=0.0001))
# a tenth after 70 and after 90 percent of the steps
param_scheduler = [
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[21000, 27000],
        gamma=0.1,
    )
]
train_cfg = dict(max_iters=30000, val_interval=3000)
default_hooks = dict(checkpoint=dict(interval=3000))
auto_scale_lr = dict(base_batch_size=16)

custom_hooks = [
    dict(type='mm_rotssl.PretrainedCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
