# Mask R-CNN on ResNet-50 up to its fourth stage (C4), COCO, the protocol of
# MoCo (He et al., CVPR 2020, section 4.2): every layer is fine-tuned, with
# batch normalization.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py'

# The last stage is part of the head. It comes from the same file.
pretrained = 'work_dirs/backbone.pth'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    # as the backbone was trained, not as the base's, which Caffe has trained
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        # nothing is frozen; 0 would freeze the first convolution
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    roi_head=dict(
        shared_head=dict(
            # MoCo normalizes once more after the last stage
            type='ResLayerExtraNorm',
            norm_cfg=norm_cfg,
            norm_eval=False,
            style='pytorch',
            # without this the last stage is random
            init_cfg=dict(type='Pretrained', checkpoint=pretrained),
        ),
    ),
)

# shorter side of 640 to 800 pixels; tests keep the base's 800
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(640, 801, 32)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

auto_scale_lr = dict(base_batch_size=16)

# registers ResLayerExtraNorm
custom_imports = dict(
    imports=['mmpretrain.models.utils.res_layer_extra_norm'],
    allow_failed_imports=False,
)

# the file cannot have the extra normalization
custom_hooks = [
    dict(
        type='mm_rotssl.PretrainedCheckHook',
        new=('roi_head.shared_head.norm.',),
    ),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
