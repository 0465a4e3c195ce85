# SwAV of mmpretrain on a small network, for machines without a GPU. The loss
# does on several processes what it does on one; it needs no SwAVHook.
model = dict(
    type='SwAV',
    backbone=dict(
        type='mm_rotssl.NIN', num_stages=3, base_channels=24, out_indices=(2,)
    ),
    neck=dict(
        type='SwAVNeck',
        in_channels=24,
        hid_channels=128,
        out_channels=64,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(
        type='SwAVHead',
        loss=dict(
            type='mm_rotssl.SwAVLoss',
            feat_dim=64,
            num_crops=[2],
            # fewer than images in a batch
            num_prototypes=60,
        ),
    ),
)
