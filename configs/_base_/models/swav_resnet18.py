# ./swav_nin-w24.py with a ResNet-18.
_base_ = './swav_nin-w24.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18),
    neck=dict(in_channels=512, hid_channels=2048, out_channels=128),
    head=dict(loss=dict(feat_dim=128, num_prototypes=512)),
)
