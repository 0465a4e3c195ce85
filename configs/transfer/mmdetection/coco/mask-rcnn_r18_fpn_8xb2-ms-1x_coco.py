# Mask R-CNN with FPN on COCO, ResNet-18. The recipe is that of ResNet-50.
_base_ = './mask-rcnn_r50_fpn_8xb2-ms-1x_coco.py'

model = dict(
    backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512])
)
