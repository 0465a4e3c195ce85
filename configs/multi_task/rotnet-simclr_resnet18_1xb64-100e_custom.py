# RotNet and SimCLR on one backbone, on a folder of one's own images. One setting
# has no default, the folder:
#
#   mm-rotssl train rotnet-simclr_resnet18_1xb64-100e_custom --data FOLDER
_base_ = [
    '../_base_/models/simclr_resnet18.py',
    '../_base_/datasets/folder_two_views.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

# ----------------------- What people change most -----------------------
# (--data, --batch-size, --epochs and --lr set them on the command line, and
# --crop-size the side of the views, 224 pixels.)

# The folder, searched with all its sub-folders.
data_root = ''
# Images a step and task: RotNet makes four rows of one, SimCLR two. Halve
# this if memory runs out, and give --auto-scale-lr.
batch_size = 64
# Processes that read and crop images; the number of cores at most.
num_workers = 4
# Passes over the folder. What counts are the steps: with fewer than some
# 10,000 images train longer.
max_epochs = 100
# For 64 images a step.
base_lr = 0.03
# Weights of the losses.
weights = dict(rotation=0.4, instances=1.0)

# -----------------------------------------------------------------------
# Any algorithm can be a task: its model without backbone here, its dataset
# below.
model = dict(
    _delete_=True,
    type='mm_rotssl.MultiTask',
    backbone=_base_.model.backbone,
    tasks=dict(
        rotation=dict(
            type='mm_rotssl.RotNet',
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=512),
        ),
        instances=dict(
            type='mm_rotssl.SimCLR',
            neck=_base_.model.neck,
            head=_base_.model.head,
        ),
    ),
    weights=weights,
    # how strongly each task pulls at the backbone, and whether they agree
    gradient_interval=100,
)
rotation_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='mm_rotssl.RandomResizedCropFlip', scale=224, flip_prob=0.5),
    dict(type='mm_rotssl.PackInputs'),
]
folder = dict(type='mm_rotssl.ImageFolder', data_root=data_root)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.StackedDataset',
        datasets=dict(
            rotation=dict(**folder, pipeline=rotation_pipeline),
            instances=dict(**folder, pipeline=_base_.train_pipeline),
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=base_lr))
auto_scale_lr = dict(base_batch_size=64)
train_cfg = dict(max_epochs=max_epochs)

default_hooks = dict(logger=dict(interval=10))
