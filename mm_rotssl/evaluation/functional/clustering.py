"""Do clusters that were found without labels agree with the classes?

Source: Amrani, Karlinsky and Bronstein, *Self-Supervised Classification
Network*, ECCV 2022 (https://arxiv.org/abs/2103.10994), and the evaluation
code the authors released.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)


def match_clusters(
    predictions: np.ndarray, targets: np.ndarray
) -> dict[int, int]:
    """Name the class that each cluster stands for.

    The Hungarian method matches clusters and classes one to one so that as
    many images as possible are in the cluster of their class. Only those
    that occur take part. If there are more clusters than classes, each of
    those left over stands for the class that most of its images are of (the
    smallest of several), whether or not another cluster stands for it
    already. If there are fewer, some classes are nobody's.

    Where several matchings are equally good, SciPy takes one of them.

    Args:
        predictions (ndarray): Cluster of each image, an integer type (N,),
            from 0; numbers may be missing.
        targets (ndarray): Class of each image, likewise.

    Returns:
        dict[int, int]: The class of every cluster that occurs.

    Raises:
        ValueError: If there are no images, not as many predictions as
            targets, or they are not integers from 0 of shape (N,).

    Examples:
        >>> import numpy as np
        >>> predictions = np.array([5, 5, 5, 0, 0, 2])
        >>> targets = np.array([1, 1, 0, 0, 0, 1])
        >>> match_clusters(predictions, targets)
        {0: 0, 2: 1, 5: 1}
    """
    clusters, classes, table = _count(predictions, targets)
    match, _ = _match(table)
    return dict(zip(clusters.tolist(), classes[match].tolist(), strict=True))


def clustering_scores(
    predictions: np.ndarray, targets: np.ndarray
) -> dict[str, float]:
    """Compare clusters with classes.

    Args:
        predictions (ndarray): Cluster of each image, an integer type (N,),
            from 0; numbers may be missing.
        targets (ndarray): Class of each image, likewise.

    Returns:
        dict[str, float]: In percent, but for the numbers of clusters and
        classes:

        - ``nmi``, ``ami``: mutual information, normalized by the arithmetic
          mean of both entropies, without and with adjustment for chance;
        - ``ari``: Rand index, adjusted for chance;
        - ``accuracy``: images in a cluster that stands for their class, see
          `match_clusters`. With more clusters than classes several may stand
          for one class, as in the authors' figures;
        - ``accuracy_one_to_one``: the same, but clusters left over by the
          matching stand for no class;
        - ``clusters_in_use``, ``classes``: how many occur;
        - ``largest_cluster``: images in the largest cluster. Near 100, the
          clustering has collapsed.

    Raises:
        ValueError: See `match_clusters`.

    Examples:
        >>> import numpy as np
        >>> scores = clustering_scores(
        ...     np.array([5, 5, 5, 0, 0, 2]), np.array([1, 1, 1, 0, 0, 0])
        ... )
        >>> scores['accuracy'], round(scores['accuracy_one_to_one'], 1)
        (100.0, 83.3)
    """
    clusters, classes, table = _count(predictions, targets)
    match, left_over = _match(table)
    hits = table[np.arange(len(clusters)), match]
    images = table.sum()
    return {
        **_agreement(predictions, targets),
        'accuracy': float(100 * hits.sum() / images),
        'accuracy_one_to_one': float(100 * hits[~left_over].sum() / images),
        'clusters_in_use': float(len(clusters)),
        'classes': float(len(classes)),
        'largest_cluster': float(100 * table.sum(1).max() / images),
    }


def right_images(
    predictions: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tell which images are in a cluster that stands for their class.

    Args:
        predictions (ndarray): Cluster of each image, an integer type (N,),
            from 0; numbers may be missing.
        targets (ndarray): Class of each image, likewise.

    Returns:
        tuple[ndarray, ndarray]: bool (N,) each. First, with clusters and
        classes matched one to one (`match_clusters`), where clusters left
        over stand for no class; second, many to one: each cluster stands
        for the class that most of its images are of. The mean of the second
        is the purity.

    Raises:
        ValueError: See `match_clusters`.

    Examples:
        >>> import numpy as np
        >>> predictions = np.array([5, 5, 5, 0, 0, 2])
        >>> targets = np.array([1, 1, 0, 0, 0, 0])
        >>> one, many = right_images(predictions, targets)
        >>> one.sum().item(), many.sum().item()
        (4, 5)
    """
    clusters, classes, table = _count(predictions, targets)
    match, left_over = _match(table)
    rows = np.searchsorted(clusters, predictions)
    one_to_one = (classes[match][rows] == targets) & ~left_over[rows]
    return one_to_one, classes[table.argmax(1)][rows] == targets


def superclass_scores(
    predictions: np.ndarray, targets: np.ndarray, superclasses: np.ndarray
) -> dict[str, float]:
    """Compare clusters with superclasses: groups of classes.

    Only images whose class belongs to a superclass count. Clusters are
    matched with the classes (`match_clusters`), and each stands for the
    superclass of its class. So an image is right at the coarse level if its
    cluster stands for any class of its superclass.

    Args:
        predictions (ndarray): Cluster of each image, an integer type (N,),
            from 0; numbers may be missing.
        targets (ndarray): Class of each image, likewise.
        superclasses (ndarray): Superclass of each class, an integer type
            (number of classes,), from 0; -1 for a class that belongs to none.
            See `read_hierarchy`.

    Returns:
        dict[str, float]: In percent, but for the numbers:

        - ``fine_nmi``, ``fine_ami``, ``fine_ari``, ``fine_accuracy``: see
          `clustering_scores`; clusters and classes of the images that
          count. What the authors publish as NMI, AMI and ARI of superclasses
          are these;
        - ``coarse_accuracy``: images whose cluster stands for their
          superclass; the authors' accuracy of superclasses;
        - ``coarse_nmi``, ``coarse_ami``, ``coarse_ari``: the superclasses
          that the clusters stand for against those of the images;
        - ``superclasses``: how many occur;
        - ``images``: how many count.

    Raises:
        ValueError: If no image counts, a class is not in ``superclasses``
            or that is no array of integers from -1; see also
            `match_clusters`.

    Examples:
        >>> import numpy as np
        >>> scores = superclass_scores(
        ...     np.array([0, 1, 1, 2]),
        ...     np.array([0, 0, 1, 2]),
        ...     superclasses=np.array([0, 0, -1]),
        ... )
        >>> round(scores['fine_accuracy'], 1), scores['coarse_accuracy']
        (66.7, 100.0)
    """
    predictions, targets = _check(predictions, targets)
    superclasses = np.asarray(superclasses)
    if (
        superclasses.ndim != 1
        or not np.issubdtype(superclasses.dtype, np.integer)
        or (superclasses < -1).any()
    ):
        raise ValueError(
            'superclasses must be integers (number of classes,) from -1, got '
            f'{_describe(superclasses)}.'
        )
    if targets.max() >= len(superclasses):
        raise ValueError(
            f'Class {targets.max()} occurs, but superclasses has only '
            f'{len(superclasses)} entries; it needs one for each class.'
        )
    counts = superclasses[targets] >= 0
    if not counts.any():
        raise ValueError(
            f'None of the {len(targets)} images is of a class that belongs '
            'to a superclass.'
        )
    predictions, targets = predictions[counts], targets[counts]
    match = match_clusters(predictions, targets)
    found = superclasses[[match[cluster] for cluster in predictions.tolist()]]
    truth = superclasses[targets]
    fine = clustering_scores(predictions, targets)
    return {
        **{
            f'fine_{name}': fine[name]
            for name in ('nmi', 'ami', 'ari', 'accuracy')
        },
        'coarse_accuracy': float(100 * (found == truth).mean()),
        **{
            f'coarse_{name}': score
            for name, score in _agreement(found, truth).items()
        },
        'superclasses': float(len(np.unique(truth))),
        'images': float(len(truth)),
    }


def _check(
    predictions: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    arrays = np.asarray(predictions), np.asarray(targets)
    for name, array in zip(('predictions', 'targets'), arrays, strict=True):
        if array.size == 0:
            raise ValueError(f'The {name} are empty: no images to compare.')
        if (
            array.ndim != 1
            or not np.issubdtype(array.dtype, np.integer)
            or array.min() < 0
        ):
            raise ValueError(
                f'The {name} must be integers (N,) from 0, got '
                f'{_describe(array)}.'
            )
    if len(arrays[0]) != len(arrays[1]):
        raise ValueError(
            f'{len(arrays[0])} predictions and {len(arrays[1])} targets: each '
            'image needs one of both.'
        )
    return arrays


def _describe(array: np.ndarray) -> str:
    smallest = f', smallest {array.min()}' if array.size else ''
    return f'{array.dtype} {array.shape}{smallest}'


def _count(
    predictions: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the images of each cluster and class.

    Returns:
        tuple[ndarray, ndarray, ndarray]: Clusters (K,) and classes (C,) that
        occur, ascending, and the table, int64 (K, C).
    """
    predictions, targets = _check(predictions, targets)
    clusters, rows = np.unique(predictions, return_inverse=True)
    classes, columns = np.unique(targets, return_inverse=True)
    table = np.zeros((len(clusters), len(classes)), np.int64)
    np.add.at(table, (rows, columns), 1)
    return clusters, classes, table


def _match(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match the rows of a table (K, C) with its columns.

    Returns:
        tuple[ndarray, ndarray]: Column of each row, int64 (K,), and which
        rows the one-to-one matching left over, bool (K,).
    """
    rows, columns = linear_sum_assignment(table, maximize=True)
    match = table.argmax(1)
    match[rows] = columns
    left_over = np.ones(len(table), bool)
    left_over[rows] = False
    return match, left_over


def _agreement(
    predictions: np.ndarray, targets: np.ndarray
) -> dict[str, float]:
    """NMI, AMI and ARI in percent."""
    # said explicitly, because scikit-learn has changed its default before
    scores = {
        'nmi': normalized_mutual_info_score(
            targets, predictions, average_method='arithmetic'
        ),
        'ami': adjusted_mutual_info_score(
            targets, predictions, average_method='arithmetic'
        ),
        'ari': adjusted_rand_score(targets, predictions),
    }
    return {name: 100 * float(score) for name, score in scores.items()}
