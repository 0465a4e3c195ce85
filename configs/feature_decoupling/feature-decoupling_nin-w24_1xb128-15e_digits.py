# Rotation Feature Decoupling on the embedded digits: a minute or two on two
# cores. With noise weights, after
#
#   python tools/estimate_rotation_noise.py \
#       configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py \
#       --work-dir work_dirs/digits_noise
#
# add --cfg-options train_dataloader.dataset.pipeline.0.file=work_dirs/digits_noise/rotation_noise.npz
#
# Network, images and number of steps are those of that config of RotNet.
_base_ = ['../rotnet/rotnet_nin-w24_1xb128-15e_digits.py']

model = dict(
    type='mm_rotssl.RotationFeatureDecoupling',
    neck=dict(
        _delete_=True,
        type='mm_rotssl.DecouplingNeck',
        in_channels=24,
        out_channels=128,
    ),
    rotation_channels=64,
    head=dict(in_channels=64),
    # Fewer negatives than the paper's 4096: there are 1,438 images.
    instance_head=dict(
        type='mm_rotssl.InstanceDiscriminationHead',
        in_channels=64,
        num_negatives=512,
        # Z from the first batch, and weights of 1, are for epochs of
        # thousands of steps; here are twelve. See the README.
        loss=dict(z='running_mean', z_momentum=0.5),
    ),
    loss_weights=dict(rotation=1, irrelevance=1, instance=0.1),
    noise_start_epoch=12,
)

optim_wrapper = dict(optimizer=dict(lr=0.05))
# The rate falls for 12 epochs; for the last three, those of the noise
# weights, it is raised again, as in the official schedule.
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        end=12,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineRestartLR',
        periods=[3],
        restart_weights=[0.2],
        begin=12,
        eta_min=0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
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
