# Self-Classifier on the embedded digits: a minute or two on two cores.
_base_ = ['../_base_/datasets/digits.py', '../_base_/default_runtime.py']

train_pipeline = [
    dict(
        type='MultiView',
        num_views=[2],
        transforms=[
            [
                # digits are never mirrored or turned
                dict(
                    type='mm_rotssl.RandomResizedCropFlip',
                    scale=32,
                    crop_ratio_range=(0.5, 1.0),
                )
            ]
        ],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    # the loss is one over the batch
    drop_last=True,
    dataset=dict(pipeline=train_pipeline),
)

model = dict(
    type='mm_rotssl.SelfClassifier',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mm_rotssl.ExemplarNet',
        arch='32c5-32c5-128f',
        dropout=0.0,
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Kaiming', layer='Conv2d'),
    ),
    neck=dict(
        type='mm_rotssl.SelfClassifierNeck',
        in_channels=128,
        hid_channels=256,
        out_channels=64,
    ),
    # the first has the classes that there are, the others more of them
    head=dict(
        type='mm_rotssl.SelfClassifierHead',
        in_channels=64,
        num_classes=(10, 20, 40),
    ),
)

optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4))
param_scheduler = dict(
    type='CosineAnnealingLR',
    T_max=20,
    by_epoch=True,
    convert_to_iter_based=True,
)
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=5)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=_base_.reference_dataloader,
)
val_evaluator = [
    dict(type='mm_rotssl.KNNAccuracy'),
    dict(type='mm_rotssl.ClusteringMetric'),
]

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BatchSizeCheckHook'),
]
default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=5))
