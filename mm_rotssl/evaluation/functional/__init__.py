from .knn import knn_classify
from .probing import (
    FINE_TUNING,
    draw_labels,
    fine_tune,
    linear_probe,
    mean_and_std,
    nearest_neighbors,
)

__all__ = [
    'FINE_TUNING',
    'draw_labels',
    'fine_tune',
    'knn_classify',
    'linear_probe',
    'mean_and_std',
    'nearest_neighbors',
]
