# The same from random weights.
_base_ = './faster-rcnn_r50_fpn_8xb2-ms-1x_coco.py'

model = dict(backbone=dict(init_cfg=None))
