# Exemplar-CNN on STL-10 with the middle network, the authors' recipe: 16,000
# seed patches, 1.56 million steps of 128 patches. The seed patches come first:
#
#   python tools/sample_seed_patches.py \
#       configs/exemplar_cnn/exemplar-cnn_64c5-128c5-256c5-512f_1xb128-steplr-156e_stl10.py
#
# and after training
#
#   python tools/evaluation/evaluate_svm.py CONFIG CHECKPOINT --protocol stl10
#
# Deformations are drawn anew in each epoch. For a fixed set, as theirs, set
# num_deformations=150 and fixed_deformations=True of train_dataloader.dataset;
# an epoch has 18,750 steps then and the schedule, in epochs, must be fitted.
_base_ = ['../_base_/datasets/stl10.py', '../_base_/default_runtime.py']

model = dict(
    type='mm_rotssl.ExemplarCNN',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        type='mm_rotssl.ExemplarNet',
        arch='64c5-128c5-256c5-512f',
        # all layers are measured; the head reads the last
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            bias=0.1,
            override=[
                dict(name='stage1', type='Normal', std=0.05, bias=0.1),
                dict(name='stage2', type='Normal', std=0.02, bias=0.1),
            ],
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mm_rotssl.ExemplarHead',
        in_channels=512,
        num_exemplars=16000,
        init_cfg=dict(type='Normal', layer='Linear', std=0.005),
    ),
)

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.004),
    paramwise_cfg=dict(
        custom_keys={
            'stage1.conv.weight': dict(decay_mult=0),
            'stage2.conv.weight': dict(decay_mult=0),
            'stage3.conv.weight': dict(decay_mult=0.25),
            'head.fc.weight': dict(lr_mult=0.25, decay_mult=4),
            # no decay; of the classifier too twice the rate of the others
            'conv.bias': dict(lr_mult=2, decay_mult=0),
            'head.fc.bias': dict(lr_mult=2, decay_mult=0),
        }
    ),
)
# 0.01, 0.004, 0.001, 4e-4, 1e-4
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[120, 144], gamma=0.4),
    dict(type='MultiStepLR', by_epoch=True, milestones=[132, 150], gamma=0.25),
]
auto_scale_lr = dict(base_batch_size=128)

train_cfg = dict(by_epoch=True, max_epochs=156, val_interval=4)

default_hooks = dict(checkpoint=dict(interval=4))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mm_rotssl.BindDatasetHook'),
]
