# Faster R-CNN with FPN on COCO, the protocol of MoCo (He et al., CVPR 2020,
# section 4.2): every layer is fine-tuned, with batch normalization.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

pretrained = 'work_dirs/backbone.pth'

# Recipes for supervised networks would not suit features of another scale.
# Batch statistics, of all GPUs, bring them to one, in the new layers too.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        # nothing is frozen; 0 would freeze the first convolution
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        # four convolutions, which can be normalized, and one linear layer
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
    ),
)

# shorter side of 640 to 800 pixels; tests keep the base's 800
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
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

custom_hooks = [
    dict(type='mm_rotssl.PretrainedCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
