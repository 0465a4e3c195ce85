# The same from torchvision's ResNet-50, trained on the labels of ImageNet.
_base_ = './fcn-d6_r50-d16_4xb4-30k_voc12aug-513x513.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='torchvision://resnet50')))
