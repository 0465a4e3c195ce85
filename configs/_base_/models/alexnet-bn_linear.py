# The linear probes of RotNet's official code: conv1 to conv5 of AlexNet, each
# under a linear classifier. A config sets `num_classes`.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mm_rotssl.AlexNetBN',
        out_indices=(0, 1, 2, 3, 4),
        # with the fully connected layers, which are not used
        frozen_stages=5,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    head=dict(
        type='mm_rotssl.MultiLinearHead',
        in_channels=(64, 192, 384, 256, 256),
        # N(0, sqrt(2 / num_classes))
        init_cfg=dict(
            type='Kaiming', layer='Linear', mode='fan_out', nonlinearity='relu'
        ),
    ),
)
