"""What is measured of a network's features: a protocol a file.

A protocol takes :class:`~mm_rotssl.evaluation.features.Features`, or the
network where features do not suffice, and gives plain figures. None knows
another, and none draws.
"""

from .clusters import Clusters, clusters_rows, predict_classes
from .fine_tuning import fine_tuned_accuracy
from .geometry import Geometry
from .invariance import Invariance
from .knn import KNN
from .linear import LinearProbe
from .rotation import rotation_accuracy
from .rotation_probe import RotationProbe
from .svm import SVM_PROTOCOLS, LinearSVM, svm_protocol
from .views import Views

__all__ = [
    'KNN',
    'SVM_PROTOCOLS',
    'Clusters',
    'Geometry',
    'Invariance',
    'LinearProbe',
    'LinearSVM',
    'RotationProbe',
    'Views',
    'clusters_rows',
    'fine_tuned_accuracy',
    'predict_classes',
    'rotation_accuracy',
    'svm_protocol',
]
