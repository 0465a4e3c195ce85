# SimCLR with rotation prediction beside it.
_base_ = './simclr_nin-w24_1xb128-20e_digits.py'

model = dict(
    _delete_=True,
    type='mm_rotssl.ESSL',
    algorithm=_base_.model,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=24, hid_channels=128),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.essl_pipeline))
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.RotationAccuracy'),
]
