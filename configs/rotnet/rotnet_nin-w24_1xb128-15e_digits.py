# RotNet on the embedded digits: about a minute on two cores.
_base_ = ['../_base_/datasets/digits.py', '../_base_/default_runtime.py']

# digits are black on white or white on black, never mirrored: no flip

model = dict(
    type='mm_rotssl.RotNet',
    data_preprocessor=_base_.data_preprocessor,
    # every stage is returned, so that each can be looked at; the head
    # reads the last
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=4,
        base_channels=24,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=24),
)

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=15, val_interval=1)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=_base_.reference_dataloader,
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = [
    dict(type='mm_rotssl.RotationAccuracy'),
    dict(type='mm_rotssl.KNNAccuracy'),
]
test_evaluator = val_evaluator

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5))
