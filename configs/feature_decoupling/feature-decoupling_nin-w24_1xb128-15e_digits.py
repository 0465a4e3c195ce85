# Rotation Feature Decoupling on the embedded digits: a minute or two on two
# cores. With noise weights, after
#
#   python tools/estimate_rotation_noise.py \
#       configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py \
#       --work-dir work_dirs/digits_noise
#
# add --cfg-options model.noise_file=work_dirs/digits_noise/rotation_noise.npz
_base_ = ['../_base_/datasets/digits.py', '../_base_/default_runtime.py']

model = dict(
    type='mm_rotssl.RotationFeatureDecoupling',
    data_preprocessor=_base_.data_preprocessor,
    # every stage is returned, so that each can be looked at; the neck
    # reads the last
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=4,
        base_channels=24,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(
        type='mm_rotssl.DecouplingNeck', in_channels=24, out_channels=128
    ),
    rotation_channels=64,
    head=dict(type='mm_rotssl.RotationHead'),
    # Fewer negatives than the paper's 4096: there are 1,438 pictures.
    instance_head=dict(
        type='mm_rotssl.InstanceDiscriminationHead',
        in_channels=64,
        num_negatives=512,
        # Z from the first batch, and weights of 1, are for epochs of
        # thousands of steps; here are twelve. See the README.
        loss=dict(z='running_mean', z_momentum=0.5),
    ),
    loss_weights=dict(rotation=1, irrelevance=1, instance=0.1),
    noise_file=None,
    noise_start_epoch=12,
)

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
# The rate falls for 12 epochs; for the last three, those of the noise
# weights, it is raised again, as in the official schedule.
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=12,
        end=12,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineRestartLR',
        periods=[3],
        restart_weights=[0.2],
        begin=12,
        end=15,
        eta_min=0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=15, val_interval=1)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', bank_dataloader=_base_.bank_dataloader
)
val_evaluator = [
    dict(type='mm_rotssl.RotationAccuracy'),
    dict(type='mm_rotssl.DecouplingProbe'),
    dict(type='mm_rotssl.KNNAccuracy'),
]

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindPicturesHook'),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5))
