# MoCo on CIFAR-10 images in folders, at a size for a machine without a
# GPU. ../essl/essl-moco_nin-w24_1xb128-6e_cifar10-folder.py adds rotation.
_base_ = [
    '../_base_/models/moco_nin-w24.py',
    '../_base_/datasets/cifar10_folder_two_views.py',
    '../_base_/schedules/adamw_coslr_6e.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(logger=dict(interval=13), checkpoint=dict(interval=6))
