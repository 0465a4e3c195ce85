# Linear evaluation as by MoCo: a linear classifier on the frozen network,
# whose batch normalization uses its running statistics.
_base_ = [
    '../_base_/resnet50_frozen.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_sgd_steplr_100e.py',
    '../../../_base_/default_runtime.py',
]

# a tenth of it from epoch 60, a hundredth from epoch 80
optim_wrapper = dict(optimizer=dict(lr=30.0, weight_decay=0.0))
auto_scale_lr = dict(base_batch_size=256)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.PretrainedCheckHook'),
]
