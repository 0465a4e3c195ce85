# Data and schedule of MoCo's detection on Pascal VOC (He et al., CVPR 2020,
# section 4.2): trained on trainval of 2007 and 2012 for 24,000 steps of 16
# images, tested on the test set of 2007.
_base_ = [
    'mmdet::_base_/datasets/voc0712.py',
    'mmdet::_base_/default_runtime.py',
]

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # shorter side of 480 to 800 pixels
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(480, 801, 32)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    # after the resizing, which must not reach these boxes
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            *('img_id', 'img_path', 'ori_shape', 'img_shape'),
            'scale_factor',
        ),
    ),
]

train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=True),
    # not repeated within an epoch, and with the boxes below 32 pixels, which
    # the base ignores
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        # the years, by which alone the two differ
        ignore_keys=['dataset_type'],
        datasets=[
            dict(
                type='VOCDataset',
                data_root=_base_.data_root,
                ann_file=f'VOC{year}/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root=f'VOC{year}/'),
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline=train_pipeline,
            )
            for year in (2007, 2012)
        ],
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# mAP is what papers call AP, the mean over the ten thresholds; AP50 and AP75
# stand beside it. Precision is averaged over eleven points, the rules of 2007,
# which detectron2 and with it MoCo follow, and as the area under its curve.
val_evaluator = [
    dict(
        type='VOCMetric',
        iou_thrs=[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
        eval_mode=mode,
        prefix=mode,
    )
    for mode in ('11points', 'area')
]
test_evaluator = val_evaluator

train_cfg = dict(type='IterBasedTrainLoop', max_iters=24000, val_interval=3000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
)
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100
    ),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[18000, 22000],
        gamma=0.1,
    ),
]
auto_scale_lr = dict(base_batch_size=16)

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3000))
log_processor = dict(by_epoch=False)
