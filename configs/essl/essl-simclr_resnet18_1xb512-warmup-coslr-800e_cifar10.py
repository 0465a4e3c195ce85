# E-SSL with SimCLR on CIFAR-10, the authors' recipe, for a GPU; not run: 800
# epochs, a rate of 0.06 for 256 images after ten epochs of warm-up, the common
# statistics of CIFAR-10, and their projector. A departure: the loss is NT-Xent,
# which compares a view with all others of the batch, where theirs compares it
# with the second views only.
_base_ = ['./essl-simclr_resnet18_1xb512-coslr-200e_cifar10.py']

model = dict(
    algorithm=dict(
        neck=dict(
            hid_channels=2048, out_channels=2048, with_last_bn_affine=False
        )
    )
)
data_preprocessor = dict(
    mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255]
)

optim_wrapper = dict(optimizer=dict(lr=0.12))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=10,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=800)
