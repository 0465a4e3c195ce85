# SCAN on CIFAR-10, the authors' recipe after SimCLR: Adam, a rate that stays
# as it is, four random operations and a hole as augmentation. For a GPU; not
# run. Operations are those of RandAugment as mmpretrain has them, with random
# magnitudes; cutting to 32 pixels, theirs, changes nothing.
_base_ = [
    '../_base_/datasets/cifar10_two_views.py',
    '../_base_/default_runtime.py',
]

# of the first step
load_from = 'work_dirs/simclr/epoch_200.pth'
neighbors = 'work_dirs/simclr/neighbors.npz'

model = dict(
    type='mm_rotssl.SCAN',
    backbone=dict(type='ResNet_CIFAR', depth=18, out_indices=(0, 1, 2, 3)),
    head=dict(type='mm_rotssl.ScanHead', in_channels=512, num_classes=10),
)
strong = [
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=4,
        magnitude_level=9,
        # uniformly up to that
        magnitude_std='inf',
    ),
    dict(type='Cutout', shape=16, pad_val=0, prob=1.0),
]
train_dataloader = dict(
    batch_size=128,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.NeighborPairs',
        neighbors=neighbors,
        dataset=dict(
            type='CIFAR10',
            data_root='data/cifar10',
            split='train',
            pipeline=[*strong, dict(type='PackInputs')],
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-4, weight_decay=1e-4))
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=10)
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.ClusteringMetric'),
]
test_evaluator = val_evaluator
