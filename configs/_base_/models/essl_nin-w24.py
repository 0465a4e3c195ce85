# Rotation prediction beside another algorithm, which a config puts into
# `algorithm`. Its backbone is that of ./simclr_nin-w24.py.
essl = dict(
    type='mm_rotssl.ESSL',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=24, hid_channels=128),
)
