# FCN with ResNet-18 on Cityscapes: mmseg's recipe of 40,000 steps, which
# fine-tunes every layer with synchronized normalization, and the widths of its
# ResNet-18.
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py'

pretrained = 'work_dirs/backbone.pth'

model = dict(
    # it would take the place of init_cfg
    pretrained=None,
    backbone=dict(
        # ResNetV1c of the base begins with three convolutions that no
        # checkpoint has
        type='ResNet',
        depth=18,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=dict(in_channels=256, channels=64),
)

# 16 images a step, as in the other recipes; mmseg's rate, 0.01, is the
# same for 8 and for 16
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=16)

custom_hooks = [
    dict(type='mm_rotssl.PretrainedCheckHook'),
    # a run that diverges is stopped before it saves NaN
    dict(type='mm_rotssl.DivergenceCheckHook'),
]
