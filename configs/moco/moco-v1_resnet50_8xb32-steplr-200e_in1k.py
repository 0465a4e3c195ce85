# MoCo v1 on ImageNet, the recipe of the authors' code, which mmpretrain does
# not have: a linear projection, a temperature of 0.07, no blur, and a rate in
# steps. On one GPU batch normalization tells which views are of one batch:
# the authors shuffle images among several. For GPUs; not run.
_base_ = [
    '../_base_/datasets/imagenet.py',
    '../_base_/datasets/pipelines/color_jitter.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='MoCo',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='BN'),
        zero_init_residual=False,
    ),
    queue_len=65536,
    feat_dim=128,
    # weight of the new; the authors' 0.999 is that of the old
    momentum=0.001,
    neck=dict(
        type='LinearNeck',
        in_channels=2048,
        out_channels=128,
        gap_dim=2,
        norm_cfg=None,
    ),
    head=dict(
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=0.07,
    ),
)

# colors always change, the hue as much as the rest
jitter = _base_.color_jitter.transforms
jitter[1].hue = 0.4
view = [
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        backend='pillow',
    ),
    _base_.grayscale,
    *jitter,
    _base_.flip,
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    # the queue is a multiple of a batch
    drop_last=True,
    dataset=dict(
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(type='MultiView', num_views=[2], transforms=[view]),
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
val_evaluator = [dict(type='mm_rotssl.KNNAccuracy')]
test_evaluator = val_evaluator
