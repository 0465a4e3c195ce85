# Faster R-CNN on ResNet-50 up to its fourth stage (C4), COCO, the protocol of
# MoCo (He et al., CVPR 2020, section 4.2): every layer is fine-tuned, with
# batch normalization.
# (The base already draws the shorter side from 640 to 800 pixels.)
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py'

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
    )
]
