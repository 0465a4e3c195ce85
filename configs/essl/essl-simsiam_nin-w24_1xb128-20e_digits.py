# SimSiam with rotation prediction beside it.
_base_ = [
    '../simsiam/simsiam_nin-w24_1xb128-20e_digits.py',
    '../_base_/models/essl_nin-w24.py',
]

model = dict(_base_.essl, _delete_=True, algorithm=_base_.model)
train_dataloader = dict(dataset=dict(pipeline=_base_.essl_pipeline))
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.RotationAccuracy'),
]
test_evaluator = val_evaluator
