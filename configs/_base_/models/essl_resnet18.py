# ./essl_nin-w24.py for the ResNet-18 of ./simclr_resnet18.py, with the authors'
# two hidden layers for CIFAR-10.
_base_ = './essl_nin-w24.py'

essl = dict(head=dict(in_channels=512, hid_channels=2048, num_hidden=2))
