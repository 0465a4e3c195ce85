# Instance discrimination on ImageNet with a ResNet-50: the authors' settings,
# with the loss of their last weights, a softmax over 65,536 negatives. The
# paper's is
#   model.head.loss.type=mm_rotssl.NCELoss model.head.num_negatives=4096
_base_ = [
    '../_base_/datasets/imagenet.py',
    '../_base_/datasets/pipelines/color_jitter.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='mm_rotssl.NPID',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(type='ResNet', depth=50, zero_init_residual=False),
    head=dict(
        in_channels=2048,
        num_negatives=65536,
        temperature=0.07,
    ),
)

# colors always change, the hue as much as the rest
jitter = _base_.color_jitter.transforms
jitter[1].hue = 0.4
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    dataset=dict(
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(
                type='mm_rotssl.RandomResizedCropFlip',
                scale=224,
                crop_ratio_range=(0.2, 1.0),
                backend='pillow',
            ),
            _base_.grayscale,
            *jitter,
            _base_.flip,
            dict(type='PackInputs'),
        ]
    ),
)

# the images vote that the network was trained on
reference_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='train',
        pipeline=_base_.test_pipeline,
    ),
)
val_dataloader = dict(batch_size=32, num_workers=4)
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4)
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[120, 160], gamma=0.1
)
auto_scale_lr = dict(base_batch_size=256)

train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=20)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = [dict(type='mm_rotssl.KNNAccuracy', k=200)]
test_evaluator = val_evaluator
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
]
