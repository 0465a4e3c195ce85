# ./deepcluster-v2_nin-w24.py with a ResNet-18.
_base_ = './deepcluster-v2_nin-w24.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18),
    neck=dict(in_channels=512, hid_channels=2048, out_channels=128),
    head=dict(in_channels=128, num_classes=(100, 100, 100)),
    memory=dict(feat_dim=128),
)
