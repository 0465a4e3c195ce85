# SCAN on a small network, for machines without a GPU.
model = dict(
    type='mm_rotssl.SCAN',
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=3,
        base_channels=24,
        out_indices=(0, 1, 2),
    ),
    head=dict(type='mm_rotssl.ScanHead', in_channels=24, num_classes=10),
)
