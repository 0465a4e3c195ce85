from .essl import ESSL
from .exemplar_cnn import ExemplarCNN
from .rotation_feature_decoupling import RotationFeatureDecoupling
from .rotnet import RotNet
from .self_classifier import SelfClassifier

__all__ = [
    'ESSL',
    'ExemplarCNN',
    'RotNet',
    'RotationFeatureDecoupling',
    'SelfClassifier',
]
