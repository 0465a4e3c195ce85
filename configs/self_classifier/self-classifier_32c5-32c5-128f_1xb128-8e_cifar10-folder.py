# Self-Classifier on CIFAR-10 images in folders, at a size for a machine
# without a GPU: a small network, every fifth image, 8 epochs.
_base_ = [
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/datasets/pipelines/color_jitter.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

every_fifth = list(range(0, 50000, 5))

color_jitter = _base_.color_jitter
color_jitter.transforms[1].saturation = 0.2
color = [_base_.flip, color_jitter, _base_.grayscale]
# the official crops, but all of 32 pixels, and no blur, which leaves little
# of so small images
train_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(
        type='MultiView',
        num_views=[2, 2],
        transforms=[
            [
                dict(
                    type='mm_rotssl.RandomResizedCropFlip',
                    scale=32,
                    crop_ratio_range=(0.4, 1.0),
                ),
                *color,
            ],
            [
                dict(
                    type='mm_rotssl.RandomResizedCropFlip',
                    scale=32,
                    crop_ratio_range=(0.1, 0.4),
                ),
                *color,
            ],
        ],
    ),
    dict(type='PackInputs'),
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
        hid_channels=512,
        out_channels=128,
    ),
    head=dict(
        type='mm_rotssl.SelfClassifierHead',
        in_channels=128,
        num_classes=(10, 20, 40, 80),
    ),
)

train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    drop_last=True,
    dataset=dict(indices=every_fifth, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=0)
test_dataloader = val_dataloader
# the labeled images are those that the network was trained on
reference_dataloader = _base_.reference_dataloader
reference_dataloader.num_workers = 0
reference_dataloader.dataset.indices = every_fifth

optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=8, val_interval=4)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader
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
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=4))
