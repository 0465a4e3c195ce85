# FCN on Pascal VOC 2012 with the extra annotations (10,582 images): mmseg's
# own recipe, which fine-tunes every layer with synchronized normalization.
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'

pretrained = 'work_dirs/backbone.pth'

model = dict(
    # it would take the place of init_cfg
    pretrained=None,
    backbone=dict(
        # ResNetV1c of the base begins with three convolutions that no
        # checkpoint has
        type='ResNet',
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
)

auto_scale_lr = dict(base_batch_size=16)

custom_hooks = [
    dict(type='mm_rotssl.PretrainedCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
