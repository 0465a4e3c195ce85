from .alexnet_bn import AlexNetBN
from .exemplar_net import ExemplarNet
from .nin import NIN

__all__ = ['NIN', 'AlexNetBN', 'ExemplarNet']
