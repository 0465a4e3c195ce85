# ImageNet for rotation prediction: crop and flip, no color augmentation. A
# departure from the official codes: OpenCV resizes without antialiasing, for
# speed. backend='pillow' of both resizing transforms gives theirs.
data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
)

train_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='mm_rotssl.RandomResizedCropFlip', scale=224, flip_prob=0.5),
    dict(type='mm_rotssl.PackInputs'),
]
test_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=192,
    num_workers=8,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='train',
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=192,
    num_workers=8,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='val',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
