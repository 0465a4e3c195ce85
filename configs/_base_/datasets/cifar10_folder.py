# CIFAR-10 as images in folders, <data_root>/{train,test}/<class>/*.jpg or
# .png. Same preparation as cifar10.py, but OpenCV reads in BGR order.
_base_ = ['./cifar10.py']

data_root = 'data/cifar10'

data_preprocessor = dict(bgr_to_rgb=True)

train_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    *_base_.train_pipeline,
]
test_pipeline = [
    dict(type='mm_rotssl.LoadIntactImage'),
    *_base_.test_pipeline,
]

# no labels in training
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ImageFolder',
        data_root=f'{data_root}/train',
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ImageFolder',
        data_root=f'{data_root}/test',
        with_label=True,
        test_mode=True,
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
reference_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mm_rotssl.ImageFolder',
        data_root=f'{data_root}/train',
        with_label=True,
        test_mode=True,
        pipeline=test_pipeline,
    )
)
