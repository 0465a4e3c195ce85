from .alexnet_bn import AlexNetBN
from .nin import NIN

__all__ = ['NIN', 'AlexNetBN']
