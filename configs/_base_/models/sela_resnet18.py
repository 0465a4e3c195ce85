# ./sela_nin-w24.py with a ResNet-18.
_base_ = './sela_nin-w24.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18),
    head=dict(in_channels=512, num_classes=(100,) * 10),
    labeler=dict(epsilon=0.04),
)
