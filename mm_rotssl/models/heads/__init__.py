from .exemplar_head import ExemplarHead
from .instance_discrimination_head import InstanceDiscriminationHead
from .latent_cross_correlation_head import LatentCrossCorrelationHead
from .multi_linear_head import MultiLinearHead
from .pseudo_label_head import PseudoLabelHead
from .rotation_head import RotationHead
from .scan_head import ScanHead
from .self_classifier_head import SelfClassifierHead

__all__ = [
    'ExemplarHead',
    'InstanceDiscriminationHead',
    'LatentCrossCorrelationHead',
    'MultiLinearHead',
    'PseudoLabelHead',
    'RotationHead',
    'ScanHead',
    'SelfClassifierHead',
]
