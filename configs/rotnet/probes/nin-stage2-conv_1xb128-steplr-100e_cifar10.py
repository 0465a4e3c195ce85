# The convolutional probe of RotNet's CIFAR-10 experiments: stage 2, frozen,
# under a trainable NIN block. Run with
#   --cfg-options model.backbone.init_cfg.checkpoint=<rotnet checkpoint>
_base_ = ['./nin-stage2-nonlinear_1xb128-steplr-100e_cifar10.py']

model = dict(
    neck=dict(type='mm_rotssl.NINConvNeck', in_channels=192),
    head=dict(
        _delete_=True,
        type='LinearClsHead',
        num_classes=10,
        in_channels=192,
        # N(0, sqrt(2 / out_channels)) as in the official code
        init_cfg=dict(
            type='Kaiming', layer='Linear', mode='fan_out', nonlinearity='relu'
        ),
    ),
)

param_scheduler = dict(milestones=[35, 70, 85])
