# Barlow Twins on a small network, for machines without a GPU. mmpretrain's, with
# the gradient of one process on several.
model = dict(
    type='BarlowTwins',
    backbone=dict(
        type='mm_rotssl.NIN', num_stages=3, base_channels=24, out_indices=(2,)
    ),
    neck=dict(
        type='NonLinearNeck',
        in_channels=24,
        hid_channels=128,
        out_channels=128,
        num_layers=2,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(
        type='mm_rotssl.LatentCrossCorrelationHead',
        in_channels=128,
        loss=dict(type='CrossCorrelationLoss'),
    ),
)
