# Barlow Twins with rotation prediction beside it.
_base_ = [
    '../barlowtwins/barlowtwins_resnet18_1xb512-coslr-200e_cifar10.py',
    '../_base_/models/essl_resnet18.py',
]

model = dict(_base_.essl, _delete_=True, algorithm=_base_.model)
train_dataloader = dict(dataset=dict(pipeline=_base_.essl_pipeline))
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.RotationAccuracy'),
]
test_evaluator = val_evaluator
