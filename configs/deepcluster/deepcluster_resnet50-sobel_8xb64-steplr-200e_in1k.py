# DeepCluster on ImageNet with a ResNet-50 on Sobel-filtered images, the recipe
# of OpenMMLab's mmselfsup, whose weights were trained by its version 0.x. For
# GPUs; not run. Clusters count alike by weights of the loss, there by the
# sampler.
_base_ = [
    '../_base_/datasets/imagenet.py',
    '../_base_/datasets/pipelines/color_jitter.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='mm_rotssl.PseudoLabel',
    data_preprocessor=dict(
        _base_.data_preprocessor, type='mm_rotssl.SobelDataPreprocessor'
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        in_channels=2,
        norm_cfg=dict(type='SyncBN'),
        zero_init_residual=False,
    ),
    head=dict(
        type='mm_rotssl.PseudoLabelHead',
        in_channels=2048,
        num_classes=10000,
        balanced=True,
        init_std=0.01,
    ),
    labeler=dict(type='mm_rotssl.KMeansLabeler', channels=256),
    reset_head=True,
)

# colors always change, the hue by any angle
jitter = _base_.color_jitter.transforms
jitter[1].update(saturation=1.0, hue=0.5)
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    dataset=dict(
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(
                type='mm_rotssl.RandomResizedCropFlip',
                scale=224,
                flip_prob=0.5,
            ),
            dict(
                type='Rotate',
                angle=2.0,
                prob=1.0,
                random_negative_prob=0.5,
            ),
            *jitter,
            _base_.grayscale,
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(batch_size=64)
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-5),
    # the classifier begins anew with each set of labels
    paramwise_cfg=dict(custom_keys={'head': dict(momentum=0.0)}),
)
auto_scale_lr = dict(base_batch_size=512)

train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)
val_cfg = {}
test_cfg = val_cfg
val_evaluator = dict(type='mm_rotssl.ClusteringMetric')
test_evaluator = val_evaluator
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
    dict(type='mm_rotssl.RelabelHook', pipeline=_base_.test_pipeline),
]
