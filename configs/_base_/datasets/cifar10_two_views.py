# Two random views of each CIFAR-10 image; in `essl_pipeline` also a small
# crop, to be turned.
_base_ = ['./cifar10.py']

color = [
    dict(type='RandomFlip', prob=0.5),
    # torchvision's: the host's fails with numpy 2 in older mmcv
    dict(
        type='RandomApply',
        transforms=[
            # RGB as it is
            dict(type='NumpyToPIL', to_rgb=False),
            dict(
                type='torchvision/ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1,
            ),
            dict(type='PILToNumpy', to_bgr=False),
        ],
        prob=0.8,
    ),
    dict(type='RandomGrayscale', prob=0.2, keep_channels=True),
]
view = [
    dict(
        type='mm_rotssl.RandomResizedCropFlip',
        scale=32,
        crop_ratio_range=(0.2, 1.0),
    ),
    *color,
]
small_crop = [
    dict(
        type='mm_rotssl.RandomResizedCropFlip',
        scale=16,
        crop_ratio_range=(0.2, 1.0),
    ),
    *color,
]

train_pipeline = [
    dict(type='MultiView', num_views=[2], transforms=[view]),
    dict(type='PackInputs'),
]
essl_pipeline = [
    dict(type='MultiView', num_views=[2, 1], transforms=[view, small_crop]),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=512,
    num_workers=8,
    # queues and losses count on batches of one size
    drop_last=True,
    dataset=dict(pipeline=train_pipeline),
)

val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=_base_.reference_dataloader,
)
val_evaluator = [dict(type='mm_rotssl.KNNAccuracy')]
