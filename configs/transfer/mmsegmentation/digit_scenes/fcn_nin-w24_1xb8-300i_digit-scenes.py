# A small segmenter for scenes of digits, about a minute on one core, to
# see pre-training work: `make demo-transfer`.
_base_ = ['mmseg::_base_/default_runtime.py']

# a checkpoint of configs/rotnet/rotnet_nin-w24_1xb64-10e_digit-scenes.py
# after tools/model_converters/export_backbone.py --to mmpretrain
pretrained = 'work_dirs/backbone.pth'
# written by tools/dataset_converters/digit_scenes.py data/digit_scenes
data_root = 'data/digit_scenes/VOCdevkit/VOC2012'
max_iters = 300

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # of the digits, as in pre-training
        mean=[78.0, 78.0, 78.0],
        std=[87.0, 87.0, 87.0],
        bgr_to_rgb=False,
        seg_pad_val=255,
        size_divisor=4,
    ),
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=4,
        base_channels=24,
        # a quarter of the resolution
        out_indices=(2,),
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=24,
        in_index=0,
        channels=48,
        # the two see as far as a digit is large
        num_convs=2,
        dilation=2,
        concat_input=False,
        dropout_ratio=0,
        num_classes=11,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        # nine of ten pixels are ground
        loss_decode=dict(
            type='CrossEntropyLoss', class_weight=[0.1] + 10 * [1.0]
        ),
    ),
    train_cfg={},
    test_cfg=dict(mode='whole'),
)

metainfo = dict(
    classes=('background', *'0123456789'),
    # bright, as the scenes are dark
    palette=[
        [0, 0, 0],
        [230, 60, 60],
        [60, 200, 60],
        [240, 220, 60],
        [80, 120, 255],
        [250, 140, 40],
        [170, 90, 230],
        [70, 220, 230],
        [240, 80, 200],
        [190, 240, 90],
        [250, 190, 190],
    ],
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    # no flip: mirrored digits are none
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        # PascalVOCDataset insists on its own classes
        type='BaseSegDataset',
        img_suffix='.jpg',
        seg_map_suffix='.png',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(
            img_path='JPEGImages', seg_map_path='SegmentationClass'
        ),
        ann_file='ImageSets/Segmentation/train.txt',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        img_suffix='.jpg',
        seg_map_suffix='.png',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix=dict(
            img_path='JPEGImages', seg_map_path='SegmentationClass'
        ),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=train_pipeline,
    ),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
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
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
log_processor = dict(window_size=10)
env_cfg = dict(cudnn_benchmark=False)
custom_hooks = [
    dict(type='mm_rotssl.PretrainedCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
