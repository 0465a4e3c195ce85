# FCN with ResNet-18 on Pascal VOC 2012 with the extra annotations. The recipe
# is that of ResNet-50, the widths are those of mmseg's ResNet-18.
_base_ = './fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'

model = dict(
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=128),
    auxiliary_head=dict(in_channels=256, channels=64),
)
