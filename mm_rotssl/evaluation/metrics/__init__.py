from .clustering_metric import ClusteringMetric
from .decoupling_probe import DecouplingProbe
from .knn_accuracy import KNNAccuracy
from .rotation_accuracy import RotationAccuracy

__all__ = [
    'ClusteringMetric',
    'DecouplingProbe',
    'KNNAccuracy',
    'RotationAccuracy',
]
