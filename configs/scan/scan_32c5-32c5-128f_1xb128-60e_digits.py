# SCAN on the embedded digits, the second step: a minute or two on two cores.
# The first is ../simclr/simclr_32c5-32c5-128f_1xb128-20e_digits.py and
# mm-rotssl mine-neighbors, see the page.
_base_ = [
    '../_base_/datasets/digits_two_views.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

# of the first step
load_from = 'work_dirs/simclr/epoch_20.pth'
neighbors = 'work_dirs/simclr/neighbors.npz'

model = dict(
    type='mm_rotssl.SCAN',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mm_rotssl.ExemplarNet',
        arch='32c5-32c5-128f',
        dropout=0.0,
        out_indices=(0, 1, 2),
    ),
    head=dict(type='mm_rotssl.ScanHead', in_channels=128, num_classes=10),
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.NeighborPairs',
        neighbors=neighbors,
        dataset=dict(
            type='mm_rotssl.Digits',
            split='train',
            pipeline=[*_base_.view, dict(type='PackInputs')],
        ),
    )
)

optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=60, val_interval=20)
val_evaluator = [
    *_base_.val_evaluator,
    dict(type='mm_rotssl.ClusteringMetric'),
]
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=20))
