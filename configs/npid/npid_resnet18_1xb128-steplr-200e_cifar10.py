# Instance discrimination on CIFAR-10, the recipe of the authors' README: all
# images are compared. For a GPU; not run. They keep the epoch that is best on
# the test images; here the last one counts.
_base_ = [
    '../_base_/models/npid_resnet18.py',
    '../_base_/datasets/cifar10_two_views.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(type='ResNet_CIFAR'))

# no flip; colors always change, the hue as much as the rest
jitter = _base_.color_jitter.transforms
jitter[1].hue = 0.4
jitter[0].to_rgb = jitter[2].to_bgr = False
train_dataloader = dict(
    batch_size=128,
    drop_last=False,
    dataset=dict(
        pipeline=[
            _base_.view[0],
            *jitter,
            _base_.view[3],
            dict(type='PackInputs'),
        ]
    ),
)

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[120, 160], gamma=0.1
)
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=10)

default_hooks = dict(checkpoint=dict(interval=50))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
]
