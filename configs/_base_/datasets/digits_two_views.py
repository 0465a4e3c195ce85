# Two random crops of each embedded digit, for algorithms that compare views,
# and a small one besides, for those that also turn it.
_base_ = ['./digits.py']

# digits are never mirrored or turned
view = [
    dict(
        type='mm_rotssl.RandomResizedCrop',
        scale=32,
        crop_ratio_range=(0.5, 1.0),
    )
]
small_crop = [
    dict(
        type='mm_rotssl.RandomResizedCrop',
        scale=16,
        crop_ratio_range=(0.5, 1.0),
    )
]
train_dataloader = dict(
    # queues and losses count on batches of one size
    drop_last=True,
    dataset=dict(
        pipeline=[
            dict(type='MultiView', num_views=[2], transforms=[view]),
            dict(type='PackInputs'),
        ]
    ),
)
