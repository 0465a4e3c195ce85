# Two random views of each image of a folder, for algorithms that compare
# views; in `essl_pipeline` also a small crop, to be rotated.
_base_ = './pipelines/two_views.py'

# statistics of ImageNet, good enough for photographs; in RGB order
data_preprocessor = dict(
    # any number of channels
    type='mm_rotssl.MultiChannelDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
)

blur = dict(
    type='GaussianBlur',
    magnitude_range=(0.1, 2.0),
    magnitude_std='inf',
    prob=0.5,
)
view = [dict(_base_.view[0], scale=224), *_base_.view[1:], blur]
small_crop = [dict(view[0], scale=96), *view[1:]]

train_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='MultiView', num_views=[2], transforms=[view]),
    dict(type='mm_rotssl.PackInputs'),
]
essl_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='MultiView', num_views=[2, 1], transforms=[view, small_crop]),
    dict(type='mm_rotssl.PackInputs'),
]
test_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    # queues and losses count on batches of one size
    drop_last=True,
    dataset=dict(
        type='mm_rotssl.ImageFolder',
        data_root='',
        pipeline=train_pipeline,
    ),
)

# Without labels there is nothing to measure; this says how
# images are prepared whose features are asked for.
test_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mm_rotssl.ImageFolder',
        data_root='',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_cfg = {}
test_evaluator = []
