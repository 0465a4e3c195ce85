from .base import SelfSupervisor
from .essl import ESSL
from .exemplar_cnn import ExemplarCNN
from .multi_task import MultiTask
from .npid import NPID
from .pseudo_label import PseudoLabel
from .rotation_feature_decoupling import RotationFeatureDecoupling
from .rotnet import RotNet
from .scan import SCAN, SelfLabel
from .self_classifier import SelfClassifier
from .simclr import SimCLR

__all__ = [
    'ESSL',
    'NPID',
    'SCAN',
    'ExemplarCNN',
    'MultiTask',
    'PseudoLabel',
    'RotNet',
    'RotationFeatureDecoupling',
    'SelfClassifier',
    'SelfLabel',
    'SelfSupervisor',
    'SimCLR',
]
