# DeepCluster-v2 on a small network, for machines without a GPU.
model = dict(
    type='mm_rotssl.PseudoLabel',
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=3,
        base_channels=24,
        out_indices=(0, 1, 2),
    ),
    neck=dict(
        type='NonLinearNeck',
        in_channels=24,
        hid_channels=128,
        out_channels=64,
        num_layers=2,
        # linear, normalization, ReLU, linear
        with_bias=True,
        with_last_bn=False,
        with_last_bias=True,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(
        type='mm_rotssl.PseudoLabelHead',
        in_channels=64,
        num_classes=(100, 100),
        temperature=0.1,
        prototypes=True,
    ),
    labeler=dict(type='mm_rotssl.KMeansLabeler', iterations=10),
    memory=dict(feat_dim=64),
)
