# Self-Classifier on the embedded digits: a minute or two on two cores.
_base_ = [
    '../_base_/datasets/digits_two_views.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

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

optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(val_interval=5)
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.ClusteringMetric'),
]
test_evaluator = val_evaluator

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BatchSizeCheckHook'),
]
default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=5))
