from .rotation_head import RotationHead

__all__ = ['RotationHead']
