# RotNet and instance discrimination, by SimCLR, on the embedded digits: two or
# three minutes on two cores. Other than with E-SSL, what is rotated is a dataset
# of its own, whole images.
_base_ = [
    '../_base_/models/simclr_nin-w24.py',
    '../_base_/datasets/digits_two_views.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _delete_=True,
    type='mm_rotssl.MultiTask',
    backbone=_base_.model.backbone,
    tasks=dict(
        rotation=dict(
            type='mm_rotssl.RotNet',
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=24),
        ),
        instances=dict(
            type='mm_rotssl.SimCLR',
            neck=_base_.model.neck,
            head=_base_.model.head,
        ),
    ),
    # E-SSL's
    weights=dict(rotation=0.4),
    gradient_interval=11,
)
digits = dict(type='mm_rotssl.Digits', split='train')
train_dataloader = dict(
    # of each dataset; RotNet makes 4 rows of an image, SimCLR 2
    batch_size=64,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.StackedDataset',
        datasets=dict(
            # as it is
            rotation=dict(**digits, pipeline=_base_.test_pipeline),
            instances=dict(**digits, pipeline=_base_.train_pipeline),
        ),
    ),
)
auto_scale_lr = dict(base_batch_size=64)

default_hooks = dict(logger=dict(interval=22), checkpoint=dict(interval=20))
