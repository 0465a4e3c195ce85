# Rotation Feature Decoupling on ImageNet with AlexNet, the official recipe.
#
# Its noise weights are used from epoch 210 on. Estimate them first, then add
# --cfg-options train_dataloader.dataset.pipeline.0.file=work_dirs/in1k_noise/rotation_noise.npz:
#
#   python tools/estimate_rotation_noise.py \
#       configs/rotnet/rotnet_alexnet-bn_1xb192-steplr-50e_in1k.py \
#       --work-dir work_dirs/in1k_noise
#
# (The authors do not say how they estimated theirs beyond "out of sample".
# Ours are of the center crop, by five networks.)
_base_ = ['../_base_/datasets/imagenet.py', '../_base_/default_runtime.py']

model = dict(
    type='mm_rotssl.RotationFeatureDecoupling',
    data_preprocessor=_base_.data_preprocessor,
    # its last two layers give the 4096 numbers that are divided
    backbone=dict(type='mm_rotssl.AlexNetBN'),
    rotation_channels=2048,
    head=dict(type='mm_rotssl.RotationHead'),
    # 4096 negatives, temperature 0.07, bank of 1,281,167 rows of 128. To
    # read a two-hundredth of the memory in each step, with the same
    # expectation of the gradient, set shared_negatives=True.
    instance_head=dict(
        type='mm_rotssl.InstanceDiscriminationHead', in_channels=2048
    ),
    noise_start_epoch=210,
)

optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
# 0.01, 0.001, 1e-4, 1e-5, and with the weights again 1e-4, 1e-5. (The paper
# says 200 epochs; the official config's lr=0.1 is replaced by its table.)
param_scheduler = [
    dict(
        type='MultiStepLR',
        by_epoch=True,
        milestones=[90, 130, 190, 230],
        gamma=0.1,
    ),
    dict(type='MultiStepLR', by_epoch=True, milestones=[210], gamma=10),
]
auto_scale_lr = dict(base_batch_size=192)

train_cfg = dict(by_epoch=True, max_epochs=245, val_interval=5)
val_cfg = {}
test_cfg = val_cfg
val_evaluator = [
    dict(type='mm_rotssl.RotationAccuracy'),
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
# each holds the bank, 656 MB
default_hooks = dict(checkpoint=dict(interval=5))
