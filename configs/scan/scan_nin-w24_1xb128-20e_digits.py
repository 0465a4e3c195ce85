# SCAN on the embedded digits: half a minute on two cores, after a pre-training
# and mm-rotssl mine-neighbors. See the page.
_base_ = [
    '../_base_/models/scan_nin-w24.py',
    '../_base_/datasets/digits_two_views.py',
    '../_base_/schedules/adamw_coslr_20e.py',
    '../_base_/default_runtime.py',
]

# weights of the pre-training, of the same backbone
load_from = 'work_dirs/simclr/epoch_20.pth'
neighbors = 'work_dirs/simclr/neighbors.npz'

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
val_evaluator = [
    dict(type='mm_rotssl.KNNAccuracy'),
    dict(type='mm_rotssl.ClusteringMetric'),
]
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=11), checkpoint=dict(interval=20))
