# Rotation prediction beside another algorithm, which a config puts into
# `algorithm`. Its backbone is that of ./simclr_nin-w24.py. The authors' classifier
# has two or three hidden layers of 2,048; this one is small, as the network is.
essl = dict(
    type='mm_rotssl.ESSL',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=24, hid_channels=128),
)
