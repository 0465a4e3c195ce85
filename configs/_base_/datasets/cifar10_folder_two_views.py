# Two random views of every tenth CIFAR-10 image in folders, for machines
# without a GPU; in `essl_pipeline` also a small crop, to be turned.
_base_ = ['./cifar10_folder.py']

every_tenth = list(range(0, 50000, 10))

color = [
    dict(type='RandomFlip', prob=0.5),
    # torchvision's: the host's fails with numpy 2 in older mmcv
    dict(
        type='RandomApply',
        transforms=[
            dict(type='NumpyToPIL', to_rgb=True),
            dict(
                type='torchvision/ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1,
            ),
            dict(type='PILToNumpy', to_bgr=True),
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
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='MultiView', num_views=[2], transforms=[view]),
    dict(type='PackInputs'),
]
essl_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='MultiView', num_views=[2, 1], transforms=[view, small_crop]),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    num_workers=0,
    # queues and losses count on batches of one size
    drop_last=True,
    dataset=dict(indices=every_tenth, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=0)
# the labeled images are those that the network was trained on
reference_dataloader = _base_.reference_dataloader
reference_dataloader.num_workers = 0
reference_dataloader.dataset.indices = every_tenth

val_cfg = dict(
    type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader
)
val_evaluator = [dict(type='mm_rotssl.KNNAccuracy')]
