# A small detector for scenes of digits, about a minute on one core, to
# see pre-training work: `make demo-transfer`.
_base_ = ['mmdet::_base_/default_runtime.py']

# a checkpoint of configs/rotnet/rotnet_nin-w24_1xb64-10e_digit-scenes.py
# after tools/model_converters/export_backbone.py --to mmpretrain
pretrained = 'work_dirs/backbone.pth'
# written by tools/dataset_converters/digit_scenes.py data/digit_scenes
data_root = 'data/digit_scenes/coco/'
max_iters = 300

model = dict(
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        # of the digits, as in pre-training
        mean=[78.0, 78.0, 78.0],
        std=[87.0, 87.0, 87.0],
        bgr_to_rgb=False,
        pad_size_divisor=4,
    ),
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=4,
        base_channels=24,
        # a quarter of the resolution
        out_indices=(1,),
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(
        type='ChannelMapper',
        in_channels=[24],
        out_channels=48,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=10,
        in_channels=48,
        feat_channels=48,
        stacked_convs=1,
        strides=[4],
        # one level for all sizes
        regress_ranges=((-1, 1e8),),
        norm_cfg=dict(type='BN'),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        conv_bias=True,
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
    ),
    test_cfg=dict(
        nms_pre=200,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=20,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # no flip: mirrored digits are none
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # notes the scale factor, without which nothing is predicted
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            *('img_id', 'img_path', 'ori_shape', 'img_shape'),
            'scale_factor',
        ),
    ),
]
metainfo = dict(
    classes=tuple('0123456789'),
    # bright, as the scenes are dark
    palette=[
        (230, 60, 60),
        (60, 200, 60),
        (240, 220, 60),
        (80, 120, 255),
        (250, 140, 40),
        (170, 90, 230),
        (70, 220, 230),
        (240, 80, 200),
        (190, 240, 90),
        (250, 190, 190),
    ],
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    metric='bbox',
)
test_dataloader = val_dataloader
test_evaluator = val_evaluator

train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=max_iters, val_interval=100
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=30),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=30,
        end=max_iters,
        T_max=max_iters - 30,
    ),
]
auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=max_iters),
)
log_processor = dict(window_size=10, by_epoch=False)
custom_hooks = [
    dict(type='mm_rotssl.PretrainedCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
