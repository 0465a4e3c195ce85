# The same from random weights.
_base_ = './fcn_r18-d8_4xb4-20k_voc12aug-512x512.py'

model = dict(backbone=dict(init_cfg=None))
