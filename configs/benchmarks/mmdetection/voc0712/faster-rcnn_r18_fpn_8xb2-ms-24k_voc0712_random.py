# The same from random weights.
_base_ = './faster-rcnn_r18_fpn_8xb2-ms-24k_voc0712.py'

model = dict(backbone=dict(init_cfg=None))
