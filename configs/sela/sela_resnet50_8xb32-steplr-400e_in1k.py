# SeLa on ImageNet with ten classifiers of 3,000 classes, the authors' recipe
# with an ordinary ResNet-50, where theirs normalizes before it adds. For GPUs;
# not run.
_base_ = [
    '../_base_/datasets/imagenet.py',
    '../_base_/datasets/pipelines/color_jitter.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='mm_rotssl.PseudoLabel',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(type='ResNet', depth=50, zero_init_residual=False),
    head=dict(
        type='mm_rotssl.PseudoLabelHead',
        in_channels=2048,
        num_classes=(3000,) * 10,
    ),
    labeler=dict(type='mm_rotssl.SinkhornLabeler'),
)

# colors always change, the hue as much as the rest
jitter = _base_.color_jitter.transforms
jitter[1].hue = 0.4
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(
                type='mm_rotssl.RandomResizedCropFlip',
                scale=224,
                backend='pillow',
            ),
            _base_.grayscale,
            *jitter,
            _base_.flip,
            dict(type='PackInputs'),
        ]
    ),
)
val_dataloader = dict(batch_size=32)
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.08, momentum=0.9, weight_decay=1e-5)
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[150, 300, 350], gamma=0.1
)
auto_scale_lr = dict(base_batch_size=256)

train_cfg = dict(by_epoch=True, max_epochs=400, val_interval=20)
val_cfg = {}
test_cfg = val_cfg
val_evaluator = dict(type='mm_rotssl.ClusteringMetric')
test_evaluator = val_evaluator
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
    dict(type='mm_rotssl.RelabelHook', times=100, train_mode=True),
]
