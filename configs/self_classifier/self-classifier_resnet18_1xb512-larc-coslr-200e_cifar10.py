# Self-Classifier on CIFAR-10 with a ResNet-18, for a GPU: the authors' rate for
# small batches and their augmentation without blur, ten classes and three
# classifiers of more. A warm-up of ten epochs, four local views and a queue of
# a third of the images are ours. No figures of it are published, nor measured
# here yet.
_base_ = [
    '../_base_/datasets/cifar10.py',
    '../_base_/datasets/pipelines/color_jitter.py',
    '../_base_/default_runtime.py',
]

color_jitter = _base_.color_jitter
color_jitter.transforms[1].saturation = 0.2
# this dataset gives RGB, files are read as BGR
color_jitter.transforms[0].to_rgb = color_jitter.transforms[2].to_bgr = False
grayscale = _base_.grayscale
grayscale.channel_weights = grayscale.channel_weights[::-1]
color = [_base_.flip, color_jitter, grayscale]
crop = dict(
    type='mm_rotssl.RandomResizedCropFlip',
    backend='pillow',
    interpolation='bicubic',
)
train_pipeline = [
    dict(
        type='MultiView',
        num_views=[2, 4],
        transforms=[
            [
                dict(crop, scale=32, crop_ratio_range=(0.4, 1.0)),
                *color,
            ],
            [
                dict(crop, scale=16, crop_ratio_range=(0.1, 0.4)),
                *color,
            ],
        ],
    ),
    dict(type='PackInputs'),
]

model = dict(
    type='mm_rotssl.SelfClassifier',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(type='ResNet_CIFAR', depth=18, out_indices=(0, 1, 2, 3)),
    neck=dict(
        type='mm_rotssl.SelfClassifierNeck',
        in_channels=512,
        hid_channels=2048,
    ),
    head=dict(
        type='mm_rotssl.SelfClassifierHead',
        in_channels=128,
        num_classes=(10, 20, 40, 80),
    ),
    queue=dict(type='mm_rotssl.NearestNeighborQueue', length=16384),
)

train_dataloader = dict(
    batch_size=512, drop_last=True, dataset=dict(pipeline=train_pipeline)
)

# 0.3 for 256 images
optim_wrapper = dict(
    optimizer=dict(
        type='mm_rotssl.LARC', lr=0.6, momentum=0.9, weight_decay=1e-6
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
auto_scale_lr = dict(base_batch_size=512)

train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=_base_.reference_dataloader,
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = [
    dict(type='mm_rotssl.KNNAccuracy'),
    dict(type='mm_rotssl.ClusteringMetric'),
]
test_evaluator = val_evaluator

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BatchSizeCheckHook'),
    dict(type='mm_rotssl.BindDatasetHook'),
]
