# Exemplar-CNN on CIFAR-10 pictures in folders, at a size for a machine without
# a GPU. Network, pictures and number of patches that it sees are those of
# ../rotnet/rotnet_nin-w24_1xb64-coslr-8e_cifar10-folder.py, to be compared.
_base_ = ['../rotnet/rotnet_nin-w24_1xb64-coslr-8e_cifar10-folder.py']

num_seeds = 4000

model = dict(
    _delete_=True,
    type='mm_rotssl.ExemplarCNN',
    # patches of 16 pixels are shown at 32, as the paper shows the pictures
    # at 64 when it measures features
    data_preprocessor=dict(
        _base_.data_preprocessor,
        type='mm_rotssl.DeformationDataPreprocessor',
        patch_size=32,
    ),
    backbone=_base_.model.backbone,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mm_rotssl.ExemplarHead', in_channels=24, num_seeds=num_seeds
    ),
)

train_dataloader = dict(
    batch_size=128,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ExemplarDataset',
        dataset=dict(
            _base_.train_dataloader.dataset,
            pipeline=[dict(type='mm_rotssl.LoadImageFromFile')],
        ),
        # of the pictures' 32 pixels half, for deformations need room; at the
        # lower scales there would be none
        seeds=dict(num_seeds=num_seeds, patch_size=16, scales=(1.0, 0.8)),
        num_deformations=10,
        pipeline=[
            dict(
                type='mm_rotssl.RandomDeformation',
                patch_size=16,
                on_device=True,
            ),
            dict(
                type='PackInputs',
                algorithm_keys=('exemplar_label', 'deformation'),
            ),
        ],
    ),
)

optim_wrapper = dict(optimizer=dict(lr=0.05))
auto_scale_lr = dict(base_batch_size=128)

val_evaluator = dict(_delete_=True, type='mm_rotssl.KNNAccuracy')

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.NumSeedsCheckHook'),
]
