# Self-Classifier on a folder of one's own images. One setting has no
# default, the folder:
#
#   mm-rotssl train \
#       self-classifier_resnet18_1xb128-larc-coslr-100e_custom --data FOLDER
#
# Then have the images sorted:
#
#   python tools/sort_images.py THIS_FILE CHECKPOINT --images FOLDER
_base_ = [
    '../_base_/datasets/imagenet_multicrop.py',
    '../_base_/default_runtime.py',
]

# ----------------------- What people change most -----------------------
# (On the command line: --data, --batch-size, --epochs, --lr and --crop-size;
# for the others --cfg-options with the keys that they are used in.)

# The folder, searched with all its sub-folders.
data_root = ''
# Classes of each classifier. The first are those that images are sorted
# into: about as many as are wanted. The others help to learn.
num_classes = [20, 40, 80, 160]
# Images a step; each goes through the network in eight views. Classes are
# made equally large within it: at least some images for each of the first.
batch_size = 128
# Processes that read and crop images; the number of cores at most.
num_workers = 4
# Passes over the folder. What counts are the steps: with fewer than some
# 10,000 images train longer.
max_epochs = 100
# The authors' is 0.3 for 256 images, proportional to their number.
base_lr = 0.15
# How many unreadable files are named and skipped before the run stops.
max_broken = 10
# Epochs between checkpoints; the last three are kept.
checkpoint_interval = 10

# ------------------------------- Data ----------------------------------
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ImageFolder',
        data_root=data_root,
        max_broken=max_broken,
        pipeline=_base_.train_pipeline,
    ),
)
# How images are prepared that are sorted. Without labels there is nothing to
# measure, neither while training nor after it.
val_dataloader = None
test_dataloader = dict(
    _base_.val_dataloader,
    batch_size=batch_size,
    num_workers=num_workers,
    dataset=dict(
        type='mm_rotssl.ImageFolder',
        data_root=data_root,
        test_mode=True,
        pipeline=_base_.test_pipeline,
    ),
)
test_cfg = {}
test_evaluator = []

# ------------------------------- Model ---------------------------------
# Any backbone of mmpretrain, or TIMMBackbone, works in its place; then
# fit `in_channels` of the neck.
model = dict(
    type='mm_rotssl.SelfClassifier',
    data_preprocessor=_base_.data_preprocessor,
    # all stages are returned, so that each can be measured; the neck reads
    # the last
    backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
    neck=dict(
        type='mm_rotssl.SelfClassifierNeck',
        in_channels=512,
        hid_channels=2048,
    ),
    head=dict(
        type='mm_rotssl.SelfClassifierHead',
        in_channels=128,
        num_classes=num_classes,
    ),
)

# ----------------------------- Schedule --------------------------------
optim_wrapper = dict(
    optimizer=dict(
        type='mm_rotssl.LARC', lr=base_lr, momentum=0.9, weight_decay=1e-6
    )
)
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    convert_to_iter_based=True,
)
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=max_epochs)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BatchSizeCheckHook'),
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=checkpoint_interval)
)
