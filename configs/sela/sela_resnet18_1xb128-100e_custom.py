# SeLa on a folder of one's own images. One setting has no default, the
# folder:
#
#   mm-rotssl train sela_resnet18_1xb128-100e_custom --data FOLDER
_base_ = [
    '../_base_/models/sela_resnet18.py',
    '../_base_/datasets/folder_two_views.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

# ----------------------- What people change most -----------------------
# (--data, --batch-size, --epochs and --lr set them on the command line, and
# --crop-size the side of the views, 224 pixels.)

# The folder, searched with all its sub-folders.
data_root = ''
# Images a step; halve this if memory runs out, and give
# --auto-scale-lr.
batch_size = 128
# Processes that read and crop images; the number of cores at most.
num_workers = 4
# Passes over the folder. What counts are the steps: with fewer than some
# 10,000 images train longer.
max_epochs = 100
# For 128 images a step.
base_lr = 0.06
# Classes of each classifier, of equal size: some ten times as many as are
# expected, each of ten images at least.
num_classes = [100, 100, 100, 100, 100, 100, 100, 100, 100, 100]
# How often the images are labeled anew, more often at the beginning; each time
# takes one more pass over them.
relabelings = 50

# -----------------------------------------------------------------------
model = dict(head=dict(num_classes=num_classes))
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            *_base_.view,
            dict(type='mm_rotssl.PackInputs'),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_epochs=max_epochs)

default_hooks = dict(logger=dict(interval=10))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
    dict(type='mm_rotssl.RelabelHook', times=relabelings, train_mode=True),
]
