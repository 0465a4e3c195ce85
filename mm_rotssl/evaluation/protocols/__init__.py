"""What is measured of a network's features: a protocol a file.

A protocol takes :class:`~mm_rotssl.evaluation.features.Features`, or the
network where features do not suffice, and gives plain figures. None knows
another, and none draws.
"""

from .base import Protocol
from .clusters import Clusters, clusters_rows, predict_classes
from .exemplar_svm import SVM_PROTOCOLS, ExemplarSVM, svm_protocol
from .fine_tuning import fine_tuned_accuracy
from .geometry import Geometry
from .invariance import Invariance
from .knn import KNN
from .linear import LinearProbe
from .nonlinear import ConvProbe, MLPProbe
from .pooled_linear import PooledLinear
from .rotation import rotation_accuracy
from .rotation_probe import RotationProbe
from .svm import SVM
from .views import Views

#: Those that a report can have, in its order.
PROTOCOLS: dict[str, type[Protocol]] = {
    kind.name: kind for kind in (Geometry, Views, RotationProbe, Invariance)
}

__all__ = [
    'KNN',
    'PROTOCOLS',
    'SVM',
    'SVM_PROTOCOLS',
    'Clusters',
    'ConvProbe',
    'ExemplarSVM',
    'Geometry',
    'Invariance',
    'LinearProbe',
    'MLPProbe',
    'PooledLinear',
    'Protocol',
    'RotationProbe',
    'Views',
    'clusters_rows',
    'fine_tuned_accuracy',
    'predict_classes',
    'rotation_accuracy',
    'svm_protocol',
]
