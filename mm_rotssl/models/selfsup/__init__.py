from .rotation_feature_decoupling import RotationFeatureDecoupling
from .rotnet import RotNet

__all__ = ['RotNet', 'RotationFeatureDecoupling']
