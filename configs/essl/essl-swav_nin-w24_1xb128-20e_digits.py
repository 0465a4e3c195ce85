# SwAV with rotation prediction beside it.
_base_ = './swav_nin-w24_1xb128-20e_digits.py'

model = dict(
    _delete_=True,
    type='mm_rotssl.ESSL',
    algorithm=_base_.model,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=24, hid_channels=128),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type='MultiView',
                num_views=[2, 1],
                transforms=[_base_.view, _base_.small_crop],
            ),
            dict(type='PackInputs'),
        ]
    )
)
val_evaluator = [
    dict(type='mm_rotssl.KNNAccuracy'),
    dict(type='mm_rotssl.RotationAccuracy'),
]
