# Places205, images of 256x256 pixels, as RotNet's official code prepares it:
# crops and flips, no scaling.
data_preprocessor = dict(
    num_classes=205,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

images = 'data/vision/torralba/deeplearning/images256'
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='Places205',
        data_root='data/places205',
        data_prefix=images,
        ann_file='trainvalsplit_places205/train_places205.csv',
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='Places205',
        data_root='data/places205',
        data_prefix=images,
        ann_file='trainvalsplit_places205/val_places205.csv',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
