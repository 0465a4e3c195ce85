# Self-Classifier on ImageNet, the authors' recipe for 100 epochs: 4,092
# images a step on 66 GPUs. Two departures: batch normalization is
# synchronized over all GPUs, theirs over groups of 22; and the rate begins at
# 1/16 of its top, 0.3 of 4.8, in every schedule.
_base_ = [
    '../_base_/datasets/imagenet_multicrop.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='mm_rotssl.SelfClassifier',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='SyncBN'),
        # mmpretrain's default is True
        zero_init_residual=False,
    ),
    neck=dict(
        type='mm_rotssl.SelfClassifierNeck',
        in_channels=2048,
        norm_cfg=dict(type='SyncBN'),
    ),
    head=dict(type='mm_rotssl.SelfClassifierHead', in_channels=128),
    queue=dict(type='mm_rotssl.NearestNeighborQueue'),
)

train_dataloader = dict(batch_size=62)

optim_wrapper = dict(
    optimizer=dict(
        type='mm_rotssl.LARC', lr=4.8, momentum=0.9, weight_decay=1e-6
    )
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.0625,
        by_epoch=True,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.001,
        by_epoch=True,
        begin=10,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=4092)

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=10)
val_cfg = {}
test_cfg = val_cfg
val_evaluator = dict(type='mm_rotssl.ClusteringMetric')
test_evaluator = val_evaluator

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BatchSizeCheckHook'),
    # tells the queue how many images there are
    dict(type='mm_rotssl.BindDatasetHook'),
]
