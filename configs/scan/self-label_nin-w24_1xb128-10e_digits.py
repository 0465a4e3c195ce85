# The last step of SCAN on the embedded digits: learn what it is sure of.
_base_ = ['./scan_nin-w24_1xb128-20e_digits.py']

load_from = 'work_dirs/scan/epoch_20.pth'

model = dict(type='mm_rotssl.SelfLabel')
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.Digits',
        split='train',
        pipeline=[
            dict(
                type='MultiView',
                num_views=[1, 1],
                # as it is, and changed
                transforms=[[dict(type='Resize', scale=32)], _base_.view],
            ),
            dict(type='PackInputs'),
        ],
    )
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_epochs=10, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
