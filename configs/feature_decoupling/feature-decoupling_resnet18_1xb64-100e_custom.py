# Rotation Feature Decoupling on a folder of one's own images. One setting
# has no default, the folder:
#
#   python tools/train.py THIS_FILE \
#       --cfg-options train_dataloader.dataset.data_root=FOLDER
#
# In two stages, with noise weights, and with a look at which of the images
# have no clear orientation (it trains five networks; --folds 2, two):
#
#   python tools/estimate_rotation_noise.py \
#       configs/rotnet/rotnet_resnet18_1xb64-100e_custom.py \
#       --work-dir work_dirs/noise \
#       --cfg-options train_dataloader.dataset.data_root=FOLDER
#
#   python tools/train.py THIS_FILE \
#       --cfg-options train_dataloader.dataset.data_root=FOLDER \
#       train_dataloader.dataset.pipeline.0.file=work_dirs/noise/rotation_noise.npz
_base_ = ['../rotnet/rotnet_resnet18_1xb64-100e_custom.py']

# ----------------------- What people change most -----------------------
# Batch, rate, size of the crops and broken files: see the config above.

# Length of the vector that is divided: the first half is for the rotation.
channels = 1024
# Images that each one is told from, drawn at random.
num_negatives = 4096
# First epoch, counted from 0, with noise weights, if there are any.
noise_start_epoch = 85

# ------------------------------- Model ---------------------------------
model = dict(
    type='mm_rotssl.RotationFeatureDecoupling',
    # the last stage of the backbone has 512 channels
    neck=dict(
        _delete_=True,
        type='mm_rotssl.DecouplingNeck',
        in_channels=512,
        out_channels=channels,
    ),
    rotation_channels=channels // 2,
    head=dict(in_channels=channels // 2),
    instance_head=dict(
        type='mm_rotssl.InstanceDiscriminationHead',
        in_channels=channels - channels // 2,
        num_negatives=num_negatives,
        # read 4096 rows of the bank in a step, not 64 times as many
        shared_negatives=True,
        # the paper's are for ImageNet and a rate of 0.01: see the README
        loss=dict(z='running_mean', z_momentum=0.9),
    ),
    loss_weights=dict(rotation=1, irrelevance=1, instance=0.1),
    noise_start_epoch=noise_start_epoch,
)

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
