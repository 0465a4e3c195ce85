from .knn_accuracy import KNNAccuracy
from .rotation_accuracy import RotationAccuracy

__all__ = ['KNNAccuracy', 'RotationAccuracy']
