# Exemplar-CNN on a folder of one's own images: no labels, no list file. The
# seed patches come first, with two images beside the file, to look at:
#
#   python tools/sample_seed_patches.py FOLDER --out SEEDS.npz
#
# Then train; folder and file have no default:
#
#   mm-rotssl train exemplar-cnn_64c5-128c5-256c5-512f_1xb128-100e_custom \
#       --data FOLDER \
#       --cfg-options train_dataloader.dataset.seed_patches=SEEDS.npz
_base_ = ['../_base_/default_runtime.py']

# ----------------------- What people change most -----------------------
# (On the command line: --data, --batch-size, --epochs and --lr; for the others
# --cfg-options with the keys that they are used in.)

# The folder, and the file of its seed patches.
data_root = ''
seed_patches = ''
# Seed patches in the file, each of which is a class; model.head.num_exemplars. The
# authors have 8,000 to 32,000; for far more there is a sampled softmax
# (`num_sampled` of the head, with the optimizer mm_rotssl.RowSGD).
num_exemplars = 8000
# Side of the patches in pixels, --patch-size of the tool.
patch_size = 32
# Patches a step.
batch_size = 128
# Patches of each seed in an epoch, and epochs: 12 million patches of 8,000
# seed patches. (The authors: 200 million of 16,000.)
num_deformations = 15
max_epochs = 100
base_lr = 1e-3
# Processes that draw deformations.
num_workers = 2

# ------------------------------- Data ----------------------------------
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mm_rotssl.ExemplarDataset',
        dataset=dict(
            type='mm_rotssl.ImageFolder',
            data_root=data_root,
            pipeline=[dict(type='mm_rotssl.LoadIntactImage')],
        ),
        seed_patches=seed_patches,
        num_deformations=num_deformations,
        pipeline=[
            # every range is a setting: see RandomDeformation
            dict(
                type='mm_rotssl.RandomDeformation',
                preset='released',
                patch_size=patch_size,
                on_device=True,
            ),
            dict(
                type='mm_rotssl.PackInputs',
                algorithm_keys=('exemplar_label', 'deformation'),
            ),
        ],
    ),
)

test_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    dict(type='ResizeEdge', scale=patch_size, edge='short'),
    dict(type='CenterCrop', crop_size=patch_size),
    dict(type='PackInputs'),
]
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
# Any backbone of mmpretrain works in its place; then fit `in_channels` of the
# head. All stages are returned, so that each can be measured.
model = dict(
    type='mm_rotssl.ExemplarCNN',
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        patch_size=patch_size,
    ),
    backbone=dict(
        type='mm_rotssl.ExemplarNet',
        arch='64c5-128c5-256c5-512f',
        input_size=patch_size,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='Kaiming', layer='Conv2d'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mm_rotssl.ExemplarHead',
        in_channels=512,
        num_exemplars=num_exemplars,
    ),
)

# ----------------------------- Schedule --------------------------------
# Adam and He's initialization leave chance within some hundred steps; the
# authors' SGD, with their initialization, takes far longer, and they train
# for 1.56 million (see the STL-10 configs).
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=base_lr, weight_decay=1e-4)
)
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    convert_to_iter_based=True,
)
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=max_epochs)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
]
