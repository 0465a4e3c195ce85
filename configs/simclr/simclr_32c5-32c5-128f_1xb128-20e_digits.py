# SimCLR on the embedded digits with the network of
# ../self_classifier/self-classifier_32c5-32c5-128f_1xb128-20e_digits.py: the
# first step of ../scan.
_base_ = ['./simclr_nin-w24_1xb128-20e_digits.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mm_rotssl.ExemplarNet',
        arch='32c5-32c5-128f',
        dropout=0.0,
        init_cfg=dict(type='Kaiming', layer='Conv2d'),
    ),
    neck=dict(in_channels=128, with_avg_pool=False),
)
