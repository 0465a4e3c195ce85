# STL-10: seed patches of Exemplar-CNN from the unlabeled images, features measured
# on the labeled ones.
data_preprocessor = dict(
    type='mm_rotssl.DeformationDataPreprocessor',
    # of the dataset. The authors subtract a mean image, which hardly
    # differs from one color, and divide by 256.
    mean=[113.9, 112.1, 103.7],
    std=[256.0, 256.0, 256.0],
)

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mm_rotssl.ExemplarDataset',
        dataset=dict(type='mm_rotssl.STL10', split='unlabeled'),
        seed_patches='data/stl10/seed_patches.npz',
        # of 16,000 seed patches 10,000 steps an epoch
        num_deformations=80,
        pipeline=[
            dict(
                type='mm_rotssl.RandomDeformation',
                preset='released',
                on_device=True,
            ),
            dict(
                type='PackInputs',
                algorithm_keys=('exemplar_label', 'deformation'),
            ),
        ],
    ),
)

test_pipeline = [dict(type='PackInputs')]
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mm_rotssl.STL10', split='test', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
reference_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mm_rotssl.STL10', split='train', pipeline=test_pipeline
    ),
)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = dict(type='mm_rotssl.KNNAccuracy')
test_evaluator = val_evaluator
