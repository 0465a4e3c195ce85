# Exemplar-CNN on the embedded digits: a minute or two on two cores. The seed patches
# are sampled at the start.
_base_ = [
    '../_base_/datasets/digits.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

num_exemplars = 1000

model = dict(
    type='mm_rotssl.ExemplarCNN',
    data_preprocessor=dict(
        _base_.data_preprocessor,
        type='mm_rotssl.DeformationDataPreprocessor',
    ),
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
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ExemplarDataset',
        # larger than a patch, which shows most of a digit
        dataset=dict(type='mm_rotssl.Digits', split='train', size=48),
        seed_patches=dict(num_exemplars=num_exemplars, scales=(1.0,)),
        num_deformations=6,
        pipeline=[
            # there is nothing but gray
            dict(
                type='mm_rotssl.RandomDeformation',
                recolor=False,
                on_device=True,
            ),
            dict(
                type='PackInputs',
                algorithm_keys=('exemplar_label', 'deformation'),
            ),
        ],
    )
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=15, val_interval=1)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop',
    reference_dataloader=_base_.reference_dataloader,
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = dict(type='mm_rotssl.KNNAccuracy')
test_evaluator = val_evaluator

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5))
