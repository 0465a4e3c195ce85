# The linear probes of RotNet's ImageNet experiments: conv1 to conv5, frozen,
# each under a linear classifier. Run with
#   --cfg-options model.backbone.init_cfg.checkpoint=<rotnet checkpoint>
_base_ = [
    '../../_base_/models/alexnet-bn_linear.py',
    '../../_base_/datasets/imagenet.py',
    '../../_base_/schedules/sgd_steplr_35e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=1000,
        mean=_base_.data_preprocessor.mean,
        std=_base_.data_preprocessor.std,
        to_rgb=True,
    ),
    head=dict(num_classes=1000),
)

train_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='RandomCrop', crop_size=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
