# CIFAR-10 as RotNet's official code prepares it. mmpretrain downloads the
# dataset on first use.
data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    # The statistics of the official code, in RGB order, which is the order
    # that mmpretrain's CIFAR10 gives. mmpretrain's own std differs.
    mean=[125.3, 123.0, 113.9],
    std=[63.0, 62.1, 66.7],
)

train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CIFAR10',
        data_root='data/cifar10',
        split='train',
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CIFAR10',
        data_root='data/cifar10',
        split='test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# The labeled images that vote in the kNN classification; not trained on
# with their labels.
reference_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CIFAR10',
        data_root='data/cifar10',
        split='train',
        pipeline=test_pipeline,
    ),
)
