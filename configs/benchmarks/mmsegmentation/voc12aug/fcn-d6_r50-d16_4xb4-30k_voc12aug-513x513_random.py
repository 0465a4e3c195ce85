# The same from random weights.
_base_ = './fcn-d6_r50-d16_4xb4-30k_voc12aug-513x513.py'

model = dict(backbone=dict(init_cfg=None))
