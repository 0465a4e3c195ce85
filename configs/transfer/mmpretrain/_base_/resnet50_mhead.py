# A linear classifier on each stage of ResNet-50, of maps that are averaged to
# about 9,000 numbers, as in mmselfsup. Departures from it: the first
# convolution is not measured, and cells are those of adaptive pooling.
_base_ = ['./resnet50_frozen.py']

model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=None,
    # a config sets `num_classes`
    head=dict(
        _delete_=True,
        type='mm_rotssl.MultiLinearHead',
        in_channels=(256, 512, 1024, 2048),
        pool='avg',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01),
    ),
)

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
)
auto_scale_lr = dict(base_batch_size=256)
val_cfg = {}
test_cfg = val_cfg
