# RotNet on a folder of one's own images: no labels, no list file. One
# setting has no default, the folder:
#
#   mm-rotssl train rotnet_resnet18_1xb64-100e_custom --data FOLDER
_base_ = ['../_base_/default_runtime.py']

# ----------------------- What people change most -----------------------
# (On the command line: --data, --batch-size, --epochs, --lr and --crop-size;
# for the others --cfg-options with the keys that they are used in.)

# The folder, searched with all its sub-folders.
data_root = ''
# Images a step. Each goes through the network in four rotations; halve
# this if memory runs out, and give --auto-scale-lr.
batch_size = 64
# Processes that read and crop images; the number of cores at most.
num_workers = 4
# Passes over the folder. What counts are the steps: with fewer than some
# 10,000 images train longer.
max_epochs = 100
# For 64 images a step. The official recipe has 0.1 for 128 (CIFAR-10),
# the ResNet-50 one 0.2 for 128 (ImageNet, with warm-up). Halved with the
# batch the former is 0.05; the lower of the two is taken because the rate
# is fit for most folders then, at the price of some speed.
base_lr = 0.05
# Side of the crops in pixels, a multiple of 32 for a ResNet.
crop_size = 224
# How many unreadable files are named and skipped before the run stops.
max_broken = 10
# Epochs between checkpoints; the last three are kept.
checkpoint_interval = 10

# ------------------------------- Data ----------------------------------
# Statistics of ImageNet, good enough for photographs; in RGB order.
data_preprocessor = dict(
    # any number of channels
    type='mm_rotssl.MultiChannelDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
)

train_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    # The official augmentation. Set flip_prob=0 for images that are never
    # seen mirrored, such as text.
    dict(
        type='mm_rotssl.RandomResizedCropFlip', scale=crop_size, flip_prob=0.5
    ),
    dict(type='mm_rotssl.PackInputs'),
]

# How images are judged: nothing is drawn at random.
test_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='ResizeEdge', scale=crop_size * 8 // 7, edge='short'),
    dict(type='CenterCrop', crop_size=crop_size),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mm_rotssl.ImageFolder',
        data_root=data_root,
        max_broken=max_broken,
        pipeline=train_pipeline,
    ),
)

# Without labels there is nothing to measure; this says how
# images are prepared whose features are asked for.
test_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mm_rotssl.ImageFolder',
        data_root=data_root,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_cfg = {}
test_evaluator = []

# ------------------------------- Model ---------------------------------
# Any backbone of mmpretrain, or TIMMBackbone, works in its place; then
# fit `in_channels` of the head.
model = dict(
    type='mm_rotssl.RotNet',
    data_preprocessor=data_preprocessor,
    # all stages are returned, so that each can be measured: the last is
    # seldom the best; the head reads the last
    backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=512),
)

# ----------------------------- Schedule --------------------------------
# Momentum and decay of the official recipe. Its steps at fixed epochs are
# replaced by a smooth decay, which needs no tuning to `max_epochs`.
optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=base_lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    convert_to_iter_based=True,
)
auto_scale_lr = dict(base_batch_size=64)

train_cfg = dict(by_epoch=True, max_epochs=max_epochs)

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=checkpoint_interval)
)

# ---------------------------- Validation -------------------------------
# There is none by default. With some labeled images, in one sub-folder
# a class, remove the `# ` below: every ten epochs each stage's features
# are judged by how well the nearest images of LABELED/train classify
# those of LABELED/val, and the rotation accuracy is measured on the
# latter. Labels never take part in training.
#
# train_cfg = dict(val_interval=10, by_epoch=True, max_epochs=max_epochs)
# labeled_dataloader = dict(
#     batch_size=batch_size,
#     num_workers=num_workers,
#     persistent_workers=False,
#     collate_fn=dict(type='default_collate'),
#     sampler=dict(type='DefaultSampler', shuffle=False))
# val_dataloader = dict(
#     **labeled_dataloader,
#     dataset=dict(
#         type='mm_rotssl.ImageFolder',
#         data_root='LABELED/val',
#         with_label=True,
#         test_mode=True,
#         pipeline=test_pipeline))
# reference_dataloader = dict(
#     **labeled_dataloader,
#     dataset=dict(
#         type='mm_rotssl.ImageFolder',
#         data_root='LABELED/train',
#         with_label=True,
#         test_mode=True,
#         pipeline=test_pipeline))
# val_cfg = dict(
#     type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader)
# val_evaluator = [
#     dict(type='mm_rotssl.RotationAccuracy'),
#     dict(type='mm_rotssl.KNNAccuracy'),
# ]
