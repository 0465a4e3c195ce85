from .clustering_metric import ClusteringMetric
from .decoupling_probe import DecouplingProbe
from .knn_accuracy import KNNAccuracy
from .rotation_accuracy import RotationAccuracy
from .stage_accuracy import StageAccuracy

__all__ = [
    'ClusteringMetric',
    'DecouplingProbe',
    'KNNAccuracy',
    'RotationAccuracy',
    'StageAccuracy',
]
