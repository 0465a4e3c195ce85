# ./moco_nin-w24.py with a ResNet-18.
_base_ = './moco_nin-w24.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18),
    queue_len=4096,
    feat_dim=128,
    neck=dict(in_channels=512, hid_channels=2048, out_channels=128),
    head=dict(temperature=0.1),
)
