# MoCo of mmpretrain on a small network, for machines without a GPU.
model = dict(
    type='MoCo',
    backbone=dict(
        type='mm_rotssl.NIN', num_stages=3, base_channels=24, out_indices=(2,)
    ),
    # eight batches
    queue_len=1024,
    feat_dim=64,
    # follows faster than in long runs
    momentum=0.01,
    neck=dict(
        type='MoCoV2Neck',
        in_channels=24,
        hid_channels=128,
        out_channels=64,
        with_avg_pool=True,
    ),
    head=dict(
        type='ContrastiveHead',
        loss=dict(type='CrossEntropyLoss'),
        temperature=0.2,
    ),
)
