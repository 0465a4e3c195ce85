from .exemplar_head import ExemplarHead
from .instance_discrimination_head import InstanceDiscriminationHead
from .rotation_head import RotationHead

__all__ = ['ExemplarHead', 'InstanceDiscriminationHead', 'RotationHead']
