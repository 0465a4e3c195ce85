# SimSiam of mmpretrain on the embedded digits: about a minute on two cores.
# essl-simsiam_nin-w24_1xb128-20e_digits.py adds rotation to it.
_base_ = [
    '../_base_/datasets/digits_two_views.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='SimSiam',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mm_rotssl.NIN', num_stages=3, base_channels=24, out_indices=(2,)
    ),
    neck=dict(
        type='NonLinearNeck',
        in_channels=24,
        hid_channels=128,
        out_channels=64,
        num_layers=2,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d'),
        with_last_bn_affine=False,
    ),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss'),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=64,
            hid_channels=128,
            out_channels=64,
            num_layers=2,
            with_avg_pool=False,
            with_last_bn=False,
            with_last_bias=True,
            norm_cfg=dict(type='BN1d'),
        ),
    ),
)

val_cfg = dict(
    type='mm_rotssl.KNNValLoop', bank_dataloader=_base_.bank_dataloader
)
val_evaluator = [dict(type='mm_rotssl.KNNAccuracy')]

default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=20))
