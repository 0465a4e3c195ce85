# SeLa on a small network, for machines without a GPU.
model = dict(
    type='mm_rotssl.PseudoLabel',
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=3,
        base_channels=24,
        out_indices=(0, 1, 2),
    ),
    head=dict(
        type='mm_rotssl.PseudoLabelHead',
        in_channels=24,
        num_classes=(32, 32, 32, 32),
    ),
    # the authors' lambda of 10 on CIFAR-10
    labeler=dict(type='mm_rotssl.SinkhornLabeler', epsilon=0.1),
)
