# Rotation Feature Decoupling on CIFAR-10 with RotNet's network, batch and
# number of epochs (../rotnet/rotnet_nin_1xb128-steplr-200e_cifar10.py). The
# paper has no experiment on CIFAR-10: what is not RotNet's is our choice.
#
# Noise weights are used from epoch 171 on. Estimate them first, then add
# --cfg-options train_dataloader.dataset.pipeline.0.file=work_dirs/cifar10_noise/rotation_noise.npz:
#
#   python tools/estimate_rotation_noise.py \
#       configs/rotnet/rotnet_nin_1xb128-steplr-200e_cifar10.py \
#       --work-dir work_dirs/cifar10_noise
_base_ = ['../rotnet/rotnet_nin_1xb128-steplr-200e_cifar10.py']

model = dict(
    type='mm_rotssl.RotationFeatureDecoupling',
    neck=dict(
        _delete_=True,
        type='mm_rotssl.DecouplingNeck',
        in_channels=192,
        out_channels=1024,
    ),
    rotation_channels=512,
    head=dict(in_channels=512),
    # With 391 steps an epoch the features run away from a normalizer that
    # is estimated once (see the README).
    instance_head=dict(
        type='mm_rotssl.InstanceDiscriminationHead',
        in_channels=512,
        loss=dict(z='running_mean', z_momentum=0.9),
    ),
    loss_weights=dict(rotation=1, irrelevance=1, instance=0.1),
    noise_start_epoch=171,
)

# The official table of 245 epochs, shortened to 200: 0.1, 0.02, 0.004, 8e-4,
# and with the weights again 0.004, 8e-4.
param_scheduler = [
    dict(
        type='MultiStepLR',
        by_epoch=True,
        milestones=[73, 106, 155, 188],
        gamma=0.2,
    ),
    dict(type='MultiStepLR', by_epoch=True, milestones=[171], gamma=5),
]

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
