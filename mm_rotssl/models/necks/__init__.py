from .decoupling_neck import DecouplingNeck
from .probe_necks import FlattenNeck, NINConvNeck

__all__ = ['DecouplingNeck', 'FlattenNeck', 'NINConvNeck']
