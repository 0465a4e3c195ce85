# The embedded digits of scikit-learn, 32x32, for a run of a minute.
data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[78.0, 78.0, 78.0],
    std=[87.0, 87.0, 87.0],
)

train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mm_rotssl.Digits', split='train', pipeline=train_pipeline
    ),
)

val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mm_rotssl.Digits', split='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader

# The labeled images that vote in the kNN classification. Neither they nor
# their labels take part in training.
reference_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mm_rotssl.Digits', split='train', pipeline=test_pipeline
    ),
)
