# Exemplar-CNN on the embedded digits: a minute or two on two cores. Network,
# schedule and number of pictures shown are those of RotNet's config
# (../rotnet/rotnet_nin-w24_1xb128-15e_digits.py). The seeds are sampled at
# the start.
_base_ = ['../rotnet/rotnet_nin-w24_1xb128-15e_digits.py']

num_seeds = 1000

model = dict(
    _delete_=True,
    type='mm_rotssl.ExemplarCNN',
    data_preprocessor=dict(
        _base_.data_preprocessor,
        type='mm_rotssl.DeformationDataPreprocessor',
    ),
    backbone=_base_.model.backbone,
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mm_rotssl.ExemplarHead', in_channels=24, num_seeds=num_seeds
    ),
)

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ExemplarDataset',
        # larger than a patch, which shows most of a digit
        dataset=dict(type='mm_rotssl.Digits', split='train', size=48),
        seeds=dict(num_seeds=num_seeds, scales=(1.0,)),
        num_deformations=6,
        pipeline=[
            # there is nothing but grey
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

val_evaluator = dict(_delete_=True, type='mm_rotssl.KNNAccuracy')

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.NumSeedsCheckHook'),
]
