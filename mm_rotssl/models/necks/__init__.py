from .decoupling_neck import DecouplingNeck
from .probe_necks import FlattenNeck, NINConvNeck
from .self_classifier_neck import SelfClassifierNeck

__all__ = [
    'DecouplingNeck',
    'FlattenNeck',
    'NINConvNeck',
    'SelfClassifierNeck',
]
