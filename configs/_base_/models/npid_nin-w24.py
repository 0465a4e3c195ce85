# Instance discrimination on a small network, for machines without a GPU.
model = dict(
    type='mm_rotssl.NPID',
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=3,
        base_channels=24,
        out_indices=(0, 1, 2),
    ),
    # all images are compared, at the temperature of the authors' CIFAR-10
    head=dict(in_channels=24, temperature=0.1),
)
