# Two random crops of each embedded digit, for algorithms that compare views;
# in `essl_pipeline` also a small one, to be rotated.
_base_ = ['./digits.py']

# digits are never mirrored or rotated
view = [
    dict(
        type='mm_rotssl.RandomResizedCropFlip',
        scale=32,
        crop_ratio_range=(0.5, 1.0),
    )
]
small_crop = [dict(view[0], scale=16)]

train_pipeline = [
    dict(type='MultiView', num_views=[2], transforms=[view]),
    dict(type='PackInputs'),
]
essl_pipeline = [
    dict(type='MultiView', num_views=[2, 1], transforms=[view, small_crop]),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    # queues and losses count on batches of one size
    drop_last=True,
    dataset=dict(pipeline=train_pipeline),
)

val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=_base_.reference_dataloader,
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = [dict(type='mm_rotssl.KNNAccuracy')]
test_evaluator = val_evaluator
