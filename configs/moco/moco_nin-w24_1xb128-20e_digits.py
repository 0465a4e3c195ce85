# MoCo on the embedded digits: about a minute on two cores.
# ../essl/essl-moco_nin-w24_1xb128-20e_digits.py adds rotation.
_base_ = [
    '../_base_/models/moco_nin-w24.py',
    '../_base_/datasets/digits_two_views.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=20))
