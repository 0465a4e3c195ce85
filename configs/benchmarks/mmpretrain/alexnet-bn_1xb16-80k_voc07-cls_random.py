# The same from random weights.
_base_ = './alexnet-bn_1xb16-80k_voc07-cls.py'

model = dict(backbone=dict(init_cfg=None))
