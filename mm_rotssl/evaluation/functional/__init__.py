from .knn import knn_classify
from .probing import (
    FINE_TUNING,
    draw_labels,
    fine_tune,
    linear_probe,
    mean_and_std,
    nearest_neighbors,
)
from .svm import choose_c, percentile_scale, pool_cells, svm_classify

__all__ = [
    'FINE_TUNING',
    'choose_c',
    'draw_labels',
    'fine_tune',
    'knn_classify',
    'linear_probe',
    'mean_and_std',
    'nearest_neighbors',
    'percentile_scale',
    'pool_cells',
    'svm_classify',
]
