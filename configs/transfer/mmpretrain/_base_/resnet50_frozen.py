# ResNet-50 whose weights and running statistics stay as they are, under a
# linear classifier.
_base_ = ['mmpretrain::_base_/models/resnet50.py']

# written by export_backbone.py --to mmpretrain
pretrained = 'work_dirs/backbone.pth'

model = dict(
    backbone=dict(
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    )
)
