from .alexnet_bn import AlexNetBN
from .exemplar_net import ExemplarNet
from .nin import NIN
from .torchvision_backbone import TorchvisionBackbone

__all__ = ['NIN', 'AlexNetBN', 'ExemplarNet', 'TorchvisionBackbone']
