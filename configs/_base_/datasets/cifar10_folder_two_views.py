# Two random views of every tenth CIFAR-10 image in folders, for machines
# without a GPU; in `essl_pipeline` also a small crop, to be rotated.
_base_ = ['./cifar10_folder.py', './pipelines/two_views.py']

every_tenth = list(range(0, 50000, 10))

train_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='MultiView', num_views=[2], transforms=[_base_.view]),
    dict(type='PackInputs'),
]
essl_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(
        type='MultiView',
        num_views=[2, 1],
        transforms=[_base_.view, _base_.small_crop],
    ),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    num_workers=0,
    # queues and losses count on batches of one size
    drop_last=True,
    dataset=dict(indices=every_tenth, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=0)
test_dataloader = val_dataloader
# the labeled images are those that the network was trained on
reference_dataloader = _base_.reference_dataloader
reference_dataloader.num_workers = 0
reference_dataloader.dataset.indices = every_tenth

val_cfg = dict(
    type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = [dict(type='mm_rotssl.KNNAccuracy')]
test_evaluator = val_evaluator
