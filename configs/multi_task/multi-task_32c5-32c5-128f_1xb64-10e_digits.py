# RotNet, Exemplar-CNN and Self-Classifier together on the embedded digits:
# about three minutes on one core. The seed patches are sampled at the start.
_base_ = [
    '../_base_/datasets/digits_two_views.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

num_exemplars = 1000

# Each task by the name of its dataset below. What they have in common, the
# backbone and the normalization, is said once.
model = dict(
    type='mm_rotssl.MultiTask',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mm_rotssl.ExemplarNet',
        arch='32c5-32c5-128f',
        # as Self-Classifier's config has it
        dropout=0.0,
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Kaiming', layer='Conv2d'),
    ),
    tasks=dict(
        rotation=dict(
            type='mm_rotssl.RotNet',
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=128),
        ),
        exemplar=dict(
            type='mm_rotssl.ExemplarCNN',
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='mm_rotssl.ExemplarHead',
                in_channels=128,
                num_exemplars=num_exemplars,
            ),
        ),
        clusters=dict(
            type='mm_rotssl.SelfClassifier',
            neck=dict(
                type='mm_rotssl.SelfClassifierNeck',
                in_channels=128,
                hid_channels=256,
                out_channels=64,
            ),
            head=dict(
                type='mm_rotssl.SelfClassifierHead',
                in_channels=64,
                num_classes=(10, 20, 40),
            ),
        ),
    ),
    weights=dict(rotation=1.0, exemplar=1.0, clusters=1.0),
    # how strongly each task pulls at the backbone, and whether they agree
    gradient_interval=11,
)

train_dataloader = dict(
    # of each dataset; RotNet makes 4 rows of an image, Self-Classifier 2
    batch_size=64,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.StackedDataset',
        datasets=dict(
            rotation=dict(
                type='mm_rotssl.Digits',
                split='train',
                pipeline=[
                    dict(type='RandomCrop', crop_size=32, padding=4),
                    dict(type='PackInputs'),
                ],
            ),
            exemplar=dict(
                type='mm_rotssl.ExemplarDataset',
                # larger than a patch, which shows most of a digit
                dataset=dict(type='mm_rotssl.Digits', split='train', size=48),
                seed_patches=dict(num_exemplars=num_exemplars, scales=(1.0,)),
                # as many entries as the others have, about
                num_deformations=1,
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
            ),
            clusters=dict(
                type='mm_rotssl.Digits',
                split='train',
                pipeline=_base_.train_pipeline,
            ),
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=64)

train_cfg = dict(max_epochs=10, val_interval=1)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
    dict(type='mm_rotssl.BatchSizeCheckHook'),
    # rotations first, classes later:
    # dict(type='mm_rotssl.TaskWeightHook', task='clusters', end_epoch=5),
]
default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=5))
