# The same from torchvision's ResNet-50, trained on the labels of ImageNet.
_base_ = './faster-rcnn_r50_fpn_8xb2-ms-1x_coco.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='torchvision://resnet50')))
