# BYOL of mmpretrain on a small network, for machines without a GPU.
model = dict(
    type='BYOL',
    backbone=dict(
        type='mm_rotssl.NIN', num_stages=3, base_channels=24, out_indices=(2,)
    ),
    # follows faster than in long runs
    base_momentum=0.02,
    neck=dict(
        type='NonLinearNeck',
        in_channels=24,
        hid_channels=128,
        out_channels=64,
        num_layers=2,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss'),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=64,
            hid_channels=128,
            out_channels=64,
            num_layers=2,
            with_avg_pool=False,
            with_last_bn=False,
            with_last_bias=True,
            norm_cfg=dict(type='BN1d'),
        ),
    ),
)
