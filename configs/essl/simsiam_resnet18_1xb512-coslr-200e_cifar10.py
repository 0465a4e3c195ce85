# SimSiam of mmpretrain on CIFAR-10 with a ResNet-18, for a GPU. Not measured
# here yet. essl-simsiam_resnet18_1xb512-coslr-200e_cifar10.py adds rotation.
_base_ = [
    '../_base_/models/simsiam_nin-w24.py',
    '../_base_/datasets/cifar10_two_views.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(_delete_=True, type='ResNet_CIFAR', depth=18),
    neck=dict(in_channels=512, hid_channels=2048, out_channels=2048),
    head=dict(
        predictor=dict(in_channels=2048, hid_channels=512, out_channels=2048)
    ),
)

default_hooks = dict(checkpoint=dict(interval=50))
