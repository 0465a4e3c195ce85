from .alignment import (
    alignment,
    mean_cosine,
    mean_cosine_of_others,
    uniformity,
)
from .average_precision import average_precision
from .classifier import classify, train_classifier
from .clustering import (
    clustering_scores,
    match_clusters,
    right_images,
    superclass_scores,
)
from .dimension import mst_dimension, two_nn_dimension
from .duplicates import nearest_pairs, pixel_correlation
from .hierarchy import read_hierarchy
from .knn import knn_classify, search_neighbors, vote
from .logistic import choose_penalty, linear_probe
from .neighborhoods import cluster_stability, hubness, neighbor_overlap
from .probing import (
    FINE_TUNING,
    draw_labels,
    fine_tune,
    mean_and_std,
    plan_fine_tuning,
)
from .scores import accuracy
from .spectrum import (
    alpha_req,
    dead_channels,
    feature_spread,
    lidar,
    rankme,
)
from .svm import check_memory, choose_c, percentile_scale, svm_classify
from .threads import limit_threads

__all__ = [
    'FINE_TUNING',
    'accuracy',
    'alignment',
    'alpha_req',
    'average_precision',
    'check_memory',
    'choose_c',
    'choose_penalty',
    'classify',
    'cluster_stability',
    'clustering_scores',
    'dead_channels',
    'draw_labels',
    'feature_spread',
    'fine_tune',
    'hubness',
    'knn_classify',
    'lidar',
    'limit_threads',
    'linear_probe',
    'match_clusters',
    'mean_and_std',
    'mean_cosine',
    'mean_cosine_of_others',
    'mst_dimension',
    'nearest_pairs',
    'neighbor_overlap',
    'percentile_scale',
    'pixel_correlation',
    'plan_fine_tuning',
    'rankme',
    'read_hierarchy',
    'right_images',
    'search_neighbors',
    'superclass_scores',
    'svm_classify',
    'train_classifier',
    'two_nn_dimension',
    'uniformity',
    'vote',
]
