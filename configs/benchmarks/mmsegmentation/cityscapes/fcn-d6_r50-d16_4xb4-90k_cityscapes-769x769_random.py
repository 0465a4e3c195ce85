# The same from random weights.
_base_ = './fcn-d6_r50-d16_4xb4-90k_cityscapes-769x769.py'

model = dict(backbone=dict(init_cfg=None))
