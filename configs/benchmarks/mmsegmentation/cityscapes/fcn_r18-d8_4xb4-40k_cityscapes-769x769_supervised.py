# The same from torchvision's ResNet-18, trained on the labels of ImageNet.
_base_ = './fcn_r18-d8_4xb4-40k_cityscapes-769x769.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='torchvision://resnet18')))
