# SimCLR on a small network, for machines without a GPU. mmpretrain's, with the
# gradient of one process on several.
model = dict(
    type='mm_rotssl.SimCLR',
    backbone=dict(
        type='mm_rotssl.NIN', num_stages=3, base_channels=24, out_indices=(2,)
    ),
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
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=0.2,
    ),
)
