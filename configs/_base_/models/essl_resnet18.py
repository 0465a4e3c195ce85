# ./essl_nin-w24.py for the ResNet-18 of ./simclr_resnet18.py.
_base_ = './essl_nin-w24.py'

essl = dict(head=dict(in_channels=512, hid_channels=2048))
