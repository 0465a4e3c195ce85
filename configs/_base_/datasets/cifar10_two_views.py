# Two random views of each CIFAR-10 image; in `essl_pipeline` also a small
# crop, to be rotated.
_base_ = ['./cifar10.py', './pipelines/two_views.py']

# this dataset gives RGB, files are read as BGR
view, small_crop = _base_.view, _base_.small_crop
view[2].transforms[0].to_rgb = view[2].transforms[2].to_bgr = False
view[3].channel_weights = view[3].channel_weights[::-1]
small_crop[2:] = view[2:]
# without aliasing, as in the official codes
view[0].backend = small_crop[0].backend = 'pillow'

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
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = [dict(type='mm_rotssl.KNNAccuracy')]
test_evaluator = val_evaluator
