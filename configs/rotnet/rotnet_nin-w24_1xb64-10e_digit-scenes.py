# RotNet on images of single digits that are drawn as in the scenes of
# ../transfer: some two minutes on one core. They are written by
#
#   python tools/dataset_converters/digit_scenes.py data/digit_scenes \
#       --unlabeled 2000
_base_ = ['./rotnet_nin-w24_1xb128-15e_digits.py']

train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ImageFolder',
        data_root='data/digit_scenes/unlabeled',
        pipeline=[
            dict(type='mm_rotssl.LoadIntactImage'),
            dict(type='mm_rotssl.PackInputs'),
        ],
    ),
)

auto_scale_lr = dict(base_batch_size=64)

param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(max_epochs=10, val_interval=10)
