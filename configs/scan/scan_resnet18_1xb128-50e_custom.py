# SCAN on a folder of one's own images: sorts them into classes. Three settings
# have no default: the folder, and the weights and neighbors of a first step.
#
#   mm-rotssl train simclr_resnet18_1xb128-100e_custom --data FOLDER
#   mm-rotssl mine-neighbors RUN --images FOLDER --out neighbors.npz
#   mm-rotssl train scan_resnet18_1xb128-50e_custom --data FOLDER \
#       --cfg-options load_from=CHECKPOINT \
#       train_dataloader.dataset.neighbors=neighbors.npz
_base_ = [
    '../_base_/datasets/folder_two_views.py',
    '../_base_/schedules/sgd_coslr_200e.py',
    '../_base_/default_runtime.py',
]

# ----------------------- What people change most -----------------------
# (--data, --batch-size, --epochs and --lr set them on the command line, and
# --crop-size the side of the views, 224 pixels.)

# The folder, searched with all its sub-folders.
data_root = ''
# Of the first step: the file that mm-rotssl mine-neighbors has written.
neighbors = ''
# Classes that the images are sorted into. All get about as many images.
num_classes = 10
# Images a step, each with a neighbor: at least ten times as many as classes.
batch_size = 128
# Processes that read and crop images; the number of cores at most.
num_workers = 4
# Passes over the folder. What counts are the steps: with fewer than some
# 10,000 images train longer.
max_epochs = 50
# The authors', whatever the number of images a step.
base_lr = 1e-4

# -----------------------------------------------------------------------
model = dict(
    type='mm_rotssl.SCAN',
    data_preprocessor=_base_.data_preprocessor,
    # all stages are returned, so that each can be measured; the head reads
    # the last
    backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
    head=dict(
        type='mm_rotssl.ScanHead', in_channels=512, num_classes=num_classes
    ),
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.NeighborPairs',
        neighbors=neighbors,
        dataset=dict(
            type='mm_rotssl.ImageFolder',
            data_root=data_root,
            pipeline=[
                dict(type='mm_rotssl.LoadIntactImage'),
                *_base_.view,
                dict(type='mm_rotssl.PackInputs'),
            ],
        ),
    ),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Adam', lr=base_lr, weight_decay=1e-4)
)
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_epochs=max_epochs)

default_hooks = dict(logger=dict(interval=10))
