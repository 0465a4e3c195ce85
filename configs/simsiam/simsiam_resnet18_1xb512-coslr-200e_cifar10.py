# SimSiam on CIFAR-10 with a ResNet-18, for a GPU; not run.
# ../essl/essl-simsiam_resnet18_1xb512-coslr-200e_cifar10.py adds rotation.
_base_ = [
    '../_base_/models/simsiam_resnet18.py',
    '../_base_/datasets/cifar10_two_views.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(type='ResNet_CIFAR'))

default_hooks = dict(checkpoint=dict(interval=50))
