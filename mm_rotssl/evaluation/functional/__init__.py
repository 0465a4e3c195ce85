from .clustering import (
    clustering_scores,
    match_clusters,
    superclass_scores,
)
from .duplicates import nearest_pairs, pixel_correlation
from .hierarchy import read_hierarchy
from .knn import knn_classify
from .probing import (
    FINE_TUNING,
    draw_labels,
    fine_tune,
    linear_probe,
    mean_and_std,
    nearest_neighbors,
)
from .scores import accuracy
from .svm import choose_c, percentile_scale, svm_classify

__all__ = [
    'FINE_TUNING',
    'accuracy',
    'choose_c',
    'clustering_scores',
    'draw_labels',
    'fine_tune',
    'knn_classify',
    'linear_probe',
    'match_clusters',
    'mean_and_std',
    'nearest_neighbors',
    'nearest_pairs',
    'percentile_scale',
    'pixel_correlation',
    'read_hierarchy',
    'superclass_scores',
    'svm_classify',
]
