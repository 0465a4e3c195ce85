# Rotation Feature Decoupling on CIFAR-10 images in folders, at a size for a
# machine without a GPU: network, images and schedule are those of
# ../rotnet/rotnet_nin-w24_1xb64-coslr-8e_cifar10-folder.py, to be compared.
_base_ = ['../rotnet/rotnet_nin-w24_1xb64-coslr-8e_cifar10-folder.py']

model = dict(
    type='mm_rotssl.RotationFeatureDecoupling',
    neck=dict(
        _delete_=True,
        type='mm_rotssl.DecouplingNeck',
        in_channels=24,
        out_channels=256,
    ),
    rotation_channels=128,
    head=dict(in_channels=128),
    instance_head=dict(
        type='mm_rotssl.InstanceDiscriminationHead',
        in_channels=128,
        # fewer than the paper's 4096: there are 10,000 images
        num_negatives=1024,
        loss=dict(z='running_mean', z_momentum=0.9),
    ),
    loss_weights=dict(rotation=1, irrelevance=1, instance=0.1),
    # Half of the run: the official share of the epochs, a seventh, would be
    # one. The rate, which falls smoothly, is not raised.
    noise_start_epoch=4,
)

val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.DecouplingProbe'),
]
test_evaluator = val_evaluator

# What each copy's rotation is worth, if a file says so, see above.
_pipeline = _base_.train_dataloader.dataset.pipeline
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mm_rotssl.LoadRotationNoise', file=None),
            *_pipeline[:-1],
            {**_pipeline[-1], 'algorithm_keys': ('rotation_noise',)},
        ]
    )
)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
]
