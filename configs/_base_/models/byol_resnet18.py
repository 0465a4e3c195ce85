# ./byol_nin-w24.py with a ResNet-18.
_base_ = './byol_nin-w24.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18),
    base_momentum=0.01,
    neck=dict(in_channels=512, hid_channels=2048, out_channels=256),
    head=dict(
        predictor=dict(in_channels=256, hid_channels=2048, out_channels=256)
    ),
)
