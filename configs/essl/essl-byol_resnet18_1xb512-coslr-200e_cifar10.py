# BYOL with rotation prediction beside it.
_base_ = './byol_resnet18_1xb512-coslr-200e_cifar10.py'

model = dict(
    _delete_=True,
    type='mm_rotssl.ESSL',
    algorithm=_base_.model,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mm_rotssl.RotationHead', in_channels=512, hid_channels=2048
    ),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.essl_pipeline))
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.RotationAccuracy'),
]
