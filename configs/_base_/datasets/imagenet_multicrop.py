# ImageNet in eight views, with the augmentation of Self-Classifier's authors:
# two crops of 224 pixels, six of 96. The first is blurred seldom, the second
# always, the other way round than in BYOL and DINO.
_base_ = ['./imagenet.py', './pipelines/color_jitter.py']

color_jitter = _base_.color_jitter
color_jitter.transforms[1].saturation = 0.2


def views(size, scale, blur, *more):
    return [
        dict(
            type='RandomResizedCrop',
            scale=size,
            crop_ratio_range=scale,
            backend='pillow',
            interpolation='bicubic',
        ),
        _base_.flip,
        color_jitter,
        _base_.grayscale,
        dict(
            type='GaussianBlur',
            magnitude_range=(0.1, 2.0),
            magnitude_std='inf',
            prob=blur,
        ),
        *more,
    ]


train_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(
        type='MultiView',
        num_views=[1, 1, 6],
        transforms=[
            views(224, (0.4, 1.0), 0.1),
            views(
                224, (0.4, 1.0), 1.0, dict(type='Solarize', thr=128, prob=0.2)
            ),
            views(96, (0.05, 0.4), 0.5),
        ],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    # the loss is one over the batch
    drop_last=True,
    dataset=dict(pipeline=train_pipeline),
)
