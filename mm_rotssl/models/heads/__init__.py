from .instance_discrimination_head import InstanceDiscriminationHead
from .rotation_head import RotationHead

__all__ = ['InstanceDiscriminationHead', 'RotationHead']
