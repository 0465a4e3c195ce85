# DeepCluster-v2 on ImageNet in eight views, the authors' recipe for 800
# epochs: 4,096 images a step. For GPUs; not run. Batch normalization is
# synchronized over all GPUs, theirs over groups of eight, and the warm-up
# begins at 1/16 of the rate, 0.3 of 4.8.
_base_ = [
    '../_base_/datasets/imagenet_multicrop.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='mm_rotssl.PseudoLabel',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='SyncBN'),
        zero_init_residual=False,
    ),
    neck=dict(
        type='NonLinearNeck',
        in_channels=2048,
        hid_channels=2048,
        out_channels=128,
        num_layers=2,
        # linear, normalization, ReLU, linear
        with_bias=True,
        with_last_bn=False,
        with_last_bias=True,
        with_avg_pool=False,
    ),
    head=dict(
        type='mm_rotssl.PseudoLabelHead',
        in_channels=128,
        num_classes=(3000, 3000, 3000),
        temperature=0.1,
        prototypes=True,
    ),
    labeler=dict(type='mm_rotssl.KMeansLabeler', iterations=10),
    memory=dict(feat_dim=128),
)

# jitter is twice as strong as that of Self-Classifier, all views are alike
# but for their crops, and each is blurred with the same probability
_jitter = _base_.color_jitter
_jitter.transforms[1].update(
    brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2
)
_views = [
    [
        dict(
            type='RandomResizedCrop',
            scale=size,
            crop_ratio_range=ratio,
            backend='pillow',
        ),
        _base_.flip,
        _jitter,
        _base_.grayscale,
        dict(
            type='GaussianBlur',
            magnitude_range=(0.1, 2.0),
            magnitude_std='inf',
            prob=0.5,
        ),
    ]
    for size, ratio in ((224, (0.14, 1.0)), (96, (0.05, 0.14)))
]
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(type='MultiView', num_views=[2, 6], transforms=_views),
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(batch_size=64)
test_dataloader = val_dataloader

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
auto_scale_lr = dict(base_batch_size=4096)

train_cfg = dict(by_epoch=True, max_epochs=800, val_interval=20)
val_cfg = {}
test_cfg = val_cfg
val_evaluator = dict(type='mm_rotssl.ClusteringMetric')
test_evaluator = val_evaluator
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
    dict(type='mm_rotssl.RelabelHook', train_mode=True),
]
