# RotNet with network, optimizer and number of rows of
# ../exemplar_cnn/exemplar-cnn_32c5-32c5-128f_1xb128-8e_cifar10-folder.py, to
# be compared: 5,000 images in four rotations, 8 times.
_base_ = ['./rotnet_nin-w24_1xb64-coslr-8e_cifar10-folder.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mm_rotssl.ExemplarNet',
        arch='32c5-32c5-128f',
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Kaiming', layer='Conv2d'),
    ),
    head=dict(in_channels=128),
)

train_dataloader = dict(
    batch_size=32, dataset=dict(indices=list(range(0, 50000, 10)))
)

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=1e-4)
)
auto_scale_lr = dict(base_batch_size=32)

train_cfg = dict(val_interval=8)
