from .exemplar_cnn import ExemplarCNN
from .rotation_feature_decoupling import RotationFeatureDecoupling
from .rotnet import RotNet

__all__ = ['ExemplarCNN', 'RotNet', 'RotationFeatureDecoupling']
