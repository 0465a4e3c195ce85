# Exemplar-CNN on CIFAR-10 images in folders, at a size for a machine without
# a GPU: half the width of the paper's small network, 2,000 seed patches, 160,000
# patches in all (the paper: 200 million).
_base_ = [
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

num_exemplars = 2000
every_fifth = list(range(0, 50000, 5))

model = dict(
    type='mm_rotssl.ExemplarCNN',
    # patches of 16 pixels are shown at 32, as the paper shows the images
    # at 64 when it measures features
    data_preprocessor=dict(
        _base_.data_preprocessor,
        type='mm_rotssl.DeformationDataPreprocessor',
        patch_size=32,
    ),
    # with the paper's small Gaussian weights so short a run stays at chance
    backbone=dict(
        type='mm_rotssl.ExemplarNet',
        arch='32c5-32c5-128f',
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Kaiming', layer='Conv2d'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mm_rotssl.ExemplarHead',
        in_channels=128,
        num_exemplars=num_exemplars,
    ),
)

train_dataloader = dict(
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ExemplarDataset',
        dataset=dict(
            type='mm_rotssl.ImageFolder',
            data_root=f'{_base_.data_root}/train',
            indices=every_fifth,
            pipeline=[dict(type='mm_rotssl.LoadIntactImage')],
        ),
        # half of the images' 32 pixels, for deformations need room; at the
        # two lower scales there would be none
        seed_patches=dict(
            num_exemplars=num_exemplars, patch_size=16, scales=(1.0, 0.8)
        ),
        num_deformations=10,
        pipeline=[
            dict(
                type='mm_rotssl.RandomDeformation',
                patch_size=16,
                on_device=True,
            ),
            dict(
                type='mm_rotssl.PackInputs',
                algorithm_keys=('exemplar_label', 'deformation'),
            ),
        ],
    ),
)
val_dataloader = dict(num_workers=0)
test_dataloader = val_dataloader
reference_dataloader = _base_.reference_dataloader
reference_dataloader.num_workers = 0
reference_dataloader.dataset.indices = every_fifth

# with the paper's SGD the loss stays at chance for thousands of steps
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=8, val_interval=8)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = dict(type='mm_rotssl.KNNAccuracy')
test_evaluator = val_evaluator

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
]
