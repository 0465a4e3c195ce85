# The third step of SCAN on the embedded digits: learn what it is sure of.
_base_ = ['./scan_32c5-32c5-128f_1xb128-60e_digits.py']

# of the second step
load_from = 'work_dirs/scan/epoch_60.pth'

# the authors' is 0.99, which of some classes no image reaches here
model = dict(type='mm_rotssl.SelfLabel', threshold=0.8)
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
train_cfg = dict(max_epochs=20, val_interval=10)
