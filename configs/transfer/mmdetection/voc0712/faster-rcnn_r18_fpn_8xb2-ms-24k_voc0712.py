# Faster R-CNN with FPN and ResNet-18 on Pascal VOC: data and schedule of
# MoCo's C4 detector, layers of its FPN detectors.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/voc0712_ms-24k.py',
]

pretrained = 'work_dirs/backbone.pth'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        depth=18,
        # nothing is frozen; 0 would freeze the first convolution
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[64, 128, 256, 512], norm_cfg=norm_cfg),
    roi_head=dict(
        # four convolutions, which can be normalized, and one linear layer
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg, num_classes=20
        ),
    ),
)

custom_hooks = [
    dict(type='mm_rotssl.PretrainedCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
