# RotNet on CIFAR-10 images in folders, at a size for a machine without a
# GPU: an eighth of the paper's width, every fifth image, 8 epochs.
_base_ = [
    '../_base_/datasets/cifar10_folder.py',
    '../_base_/default_runtime.py',
]

every_fifth = list(range(0, 50000, 5))

model = dict(
    type='mm_rotssl.RotNet',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=4,
        base_channels=24,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='mm_rotssl.RotationHead', in_channels=24),
)

train_dataloader = dict(
    batch_size=64, num_workers=0, dataset=dict(indices=every_fifth)
)
val_dataloader = dict(num_workers=0)
test_dataloader = val_dataloader
# the labeled images are those that the network was trained on
reference_dataloader = _base_.reference_dataloader
reference_dataloader.num_workers = 0
reference_dataloader.dataset.indices = every_fifth

# half the official batch and rate
optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
)
# so short a run gains from a smooth decay
param_scheduler = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    convert_to_iter_based=True,
)
auto_scale_lr = dict(base_batch_size=64)

train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=4)
val_cfg = dict(
    type='mm_rotssl.KNNValLoop', reference_dataloader=reference_dataloader
)
test_cfg = dict(val_cfg, type='mm_rotssl.KNNTestLoop')
val_evaluator = [
    dict(type='mm_rotssl.RotationAccuracy'),
    dict(type='mm_rotssl.KNNAccuracy'),
]
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=20))
