import numpy as np


def average_precision(
    scores: np.ndarray, present: np.ndarray
) -> tuple[float, float]:
    """How well scores rank the images of a class before the others.

    Of precision, at each recall the largest at that recall or more is taken.
    Two averages of it are common for Pascal VOC.

    Args:
        scores (ndarray): Of each image, higher where the class is more
            likely, (N,). Of equal scores the first image comes first.
        present (ndarray): Whether it shows the class, bool (N,).

    Returns:
        tuple[float, float]: In percent, the area under precision over recall
        (VOC since 2010, and the benchmark code of Goyal et al., ICCV 2019)
        and the mean at recalls of 0, 0.1, ..., 1 (VOC 2007).

    Raises:
        ValueError: If no image shows the class.

    Examples:
        >>> import numpy as np
        >>> scores = np.array([0.9, 0.8, 0.7, 0.6])
        >>> present = np.array([True, False, True, False])
        >>> [round(value, 1) for value in average_precision(scores, present)]
        [83.3, 84.8]
    """
    if not present.any():
        raise ValueError('No image shows the class.')
    ranked = present[np.argsort(-scores, kind='stable')]
    hits = ranked.cumsum()
    recall = hits / hits[-1]
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    area = (np.diff(recall, prepend=0) * best).sum()
    places = np.searchsorted(recall, np.arange(11) / 10)
    return 100 * float(area), 100 * float(best[places].mean())
