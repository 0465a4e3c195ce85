from .checkpoint import read_checkpoint
from .features import extract_features

__all__ = ['extract_features', 'read_checkpoint']
