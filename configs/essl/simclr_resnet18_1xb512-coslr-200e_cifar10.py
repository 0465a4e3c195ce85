# SimCLR of mmpretrain on CIFAR-10 with a ResNet-18, for a GPU. Not measured
# here yet. essl-simclr_resnet18_1xb512-coslr-200e_cifar10.py adds rotation.
_base_ = [
    '../_base_/models/simclr_nin-w24.py',
    '../_base_/datasets/cifar10_two_views.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(_delete_=True, type='ResNet_CIFAR', depth=18),
    neck=dict(in_channels=512, hid_channels=2048, out_channels=128),
    head=dict(temperature=0.5),
)

default_hooks = dict(checkpoint=dict(interval=50))
