"""What is measured of a network's features: a protocol a file.

A protocol takes :class:`~mm_rotssl.evaluation.features.Features`, or the
network where features do not suffice, and gives plain figures. None knows
another, and none draws.
"""

from .base import Protocol
from .clusters import Clusters, clusters_rows, predict_classes
from .exemplar_svm import SVM_PROTOCOLS, ExemplarSVM, svm_protocol
from .fine_tuning import FineTuning
from .geometry import Geometry
from .invariance import Invariance
from .knn import KNN
from .linear import LinearProbe
from .memory_bank import BankKNN
from .nonlinear import ConvProbe, MLPProbe
from .pooled_linear import PooledLinear
from .rotation import OwnPredictions
from .rotation_probe import RotationProbe
from .svm import SVM
from .views import Views

#: Those that a report can have, in its order.
PROTOCOLS: dict[str, type[Protocol]] = {
    kind.name: kind
    for kind in (
        Geometry,
        KNN,
        BankKNN,
        LinearProbe,
        Clusters,
        OwnPredictions,
        RotationProbe,
        Invariance,
        Views,
        SVM,
        ExemplarSVM,
        FineTuning,
        PooledLinear,
        MLPProbe,
        ConvProbe,
    )
}

__all__ = [
    'KNN',
    'PROTOCOLS',
    'SVM',
    'SVM_PROTOCOLS',
    'BankKNN',
    'Clusters',
    'ConvProbe',
    'ExemplarSVM',
    'FineTuning',
    'Geometry',
    'Invariance',
    'LinearProbe',
    'MLPProbe',
    'OwnPredictions',
    'PooledLinear',
    'Protocol',
    'RotationProbe',
    'Views',
    'clusters_rows',
    'predict_classes',
    'svm_protocol',
]
