import itertools
import warnings
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn import metrics

from mm_rotssl.evaluation import (
    clustering_scores,
    match_clusters,
    right_images,
    superclass_scores,
)


def draw(clusters, classes, images, seed):
    """Clusters that tend to hold one class, numbered with gaps."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, images)
    usual = rng.integers(0, clusters, classes)
    noisy = rng.random(images) < 0.6
    predictions = np.where(
        noisy, rng.integers(0, clusters, images), usual[targets]
    )
    return 3 * predictions + 1, 2 * targets


def best_one_to_one(predictions, targets):
    """Hits of the best matching, by trying all."""
    table = Counter(zip(predictions.tolist(), targets.tolist(), strict=True))
    clusters = sorted(set(predictions.tolist()))
    classes = sorted(set(targets.tolist()))
    if len(clusters) <= len(classes):
        tries = (
            zip(clusters, order, strict=True)
            for order in itertools.permutations(classes, len(clusters))
        )
    else:
        tries = (
            zip(order, classes, strict=True)
            for order in itertools.permutations(clusters, len(classes))
        )
    return max(sum(table[pair] for pair in pairs) for pairs in tries)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize(('clusters', 'classes'), [(5, 5), (7, 4), (3, 6)])
def test_matching_is_the_best(clusters, classes, seed):
    predictions, targets = draw(clusters, classes, 60, seed)
    match = match_clusters(predictions, targets)
    assert set(match) == set(predictions.tolist())
    assert set(match.values()) <= set(targets.tolist())
    best = best_one_to_one(predictions, targets)
    scores = clustering_scores(predictions, targets)
    assert scores['accuracy_one_to_one'] == pytest.approx(100 * best / 60)
    hits = sum(
        match[p] == t
        for p, t in zip(predictions.tolist(), targets.tolist(), strict=True)
    )
    assert scores['accuracy'] == pytest.approx(100 * hits / 60)
    if len(set(predictions.tolist())) <= len(set(targets.tolist())):
        assert len(set(match.values())) == len(match)
        assert hits == best


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize(('clusters', 'classes'), [(5, 5), (9, 4), (3, 6)])
def test_images_that_are_right(clusters, classes, seed):
    predictions, targets = draw(clusters, classes, 60, seed)
    one, many = right_images(predictions, targets)
    scores = clustering_scores(predictions, targets)
    assert 100 * one.mean() == pytest.approx(scores['accuracy_one_to_one'])
    stands_for = {}
    for cluster, hit, target in zip(predictions, one, targets, strict=True):
        if hit:
            # for one class, and no other cluster does
            assert stands_for.setdefault(cluster, target) == target
    assert len(set(stands_for.values())) == len(stands_for)
    for cluster in set(predictions.tolist()):
        inside = targets[predictions == cluster]
        (most, _), *_ = sorted(
            Counter(inside.tolist()).items(), key=lambda item: (-item[1], item)
        )
        assert (many[predictions == cluster] == (inside == most)).all()


def test_greedy_would_be_wrong():
    # cluster 0 has most of class 0, but is better given to class 1
    predictions = np.repeat([0, 0, 1, 1], [5, 4, 4, 0])
    targets = np.repeat([0, 1, 0, 1], [5, 4, 4, 0])
    assert match_clusters(predictions, targets) == {0: 1, 1: 0}
    scores = clustering_scores(predictions, targets)
    assert scores['accuracy'] == pytest.approx(100 * 8 / 13)


def test_left_over_clusters_go_to_their_majority():
    # cluster:   2     4     6     9    11
    # class 1:   9     .     3     1     .
    # class 3:   .     8     1     1     2
    # class 8:   .     .     2     .     .-> cluster 6 is matched with 8
    pairs = [(2, 1)] * 9 + [(4, 3)] * 8
    pairs += [(6, 1)] * 3 + [(6, 3)] + [(6, 8)] * 2
    pairs += [(9, 1), (9, 3)] + [(11, 3)] * 2
    predictions, targets = np.array(pairs).T
    # by hand: 9 has a tie of classes 1 and 3, the smaller one is taken
    match = match_clusters(predictions, targets)
    assert match == {2: 1, 4: 3, 6: 8, 9: 1, 11: 3}
    scores = clustering_scores(predictions, targets)
    assert scores['accuracy'] == pytest.approx(100 * (9 + 8 + 2 + 1 + 2) / 27)
    assert scores['accuracy_one_to_one'] == pytest.approx(100 * 19 / 27)
    assert scores['clusters_in_use'] == 5
    assert scores['classes'] == 3
    assert scores['largest_cluster'] == pytest.approx(100 * 9 / 27)


def authors_accuracy(predictions, targets, number):
    """The rule as published: a square table, then absent classes."""
    table = np.zeros((number, number), int)
    for p, t in zip(predictions, targets, strict=True):
        table[p, t] += 1
    match = linear_sum_assignment(-table)[1]
    present = set(targets.tolist())
    if len(set(predictions.tolist())) > len(present):
        for cluster in range(number):
            if match[cluster] not in present:
                match[cluster] = table[cluster].argmax()
    hits = [match[p] == t for p, t in zip(predictions, targets, strict=True)]
    return 100 * sum(hits) / len(hits)


@pytest.mark.parametrize(('clusters', 'classes'), [(12, 12), (12, 5), (6, 12)])
def test_as_the_authors_count(clusters, classes):
    rng = np.random.default_rng(1)
    # so many images that no two matchings are equally good
    targets = rng.integers(0, classes, 5000)
    predictions = (targets * 7 + rng.integers(0, 6, 5000) ** 2 // 5) % clusters
    assert clustering_scores(predictions, targets)[
        'accuracy'
    ] == pytest.approx(authors_accuracy(predictions, targets, 12))


def check_information(found, predictions, targets, prefix=''):
    for name, score in (
        ('nmi', metrics.v_measure_score(targets, predictions)),
        (
            'ami',
            metrics.adjusted_mutual_info_score(
                targets, predictions, average_method='arithmetic'
            ),
        ),
        ('ari', metrics.adjusted_rand_score(targets, predictions)),
    ):
        assert found[prefix + name] == pytest.approx(100 * score), name


@pytest.mark.parametrize(('clusters', 'classes'), [(5, 5), (9, 4), (3, 6)])
def test_information_against_scikit_learn(clusters, classes):
    predictions, targets = draw(clusters, classes, 200, seed=0)
    scores = clustering_scores(predictions, targets)
    check_information(scores, predictions, targets)
    # NMI from its formula
    total = len(targets)
    joint = Counter(zip(predictions.tolist(), targets.tolist(), strict=True))
    rows, columns = Counter(predictions.tolist()), Counter(targets.tolist())
    mutual = sum(
        n / total * np.log(total * n / rows[p] / columns[t])
        for (p, t), n in joint.items()
    )
    entropies = [
        -sum(n / total * np.log(n / total) for n in counts.values())
        for counts in (rows, columns)
    ]
    assert scores['nmi'] == pytest.approx(100 * mutual / np.mean(entropies))


ALONE = np.arange(6)
SAME = np.zeros(6, int)
THREE = np.array([0, 0, 1, 1, 1, 2])


@pytest.mark.parametrize(
    ('predictions', 'targets', 'accuracy', 'one_to_one', 'largest'),
    [
        (SAME, THREE, 50, 50, 100),
        (THREE, SAME, 100, 50, 50),
        (SAME, SAME, 100, 100, 100),
        (ALONE, THREE, 100, 50, 100 / 6),
        (THREE, ALONE, 50, 50, 50),
        (ALONE, ALONE[::-1], 100, 100, 100 / 6),
        (SAME[:1], THREE[-1:], 100, 100, 100),
    ],
)
def test_degenerate(predictions, targets, accuracy, one_to_one, largest):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        scores = clustering_scores(predictions, targets)
    assert np.isfinite(list(scores.values())).all()
    check_information(scores, predictions, targets)
    assert scores['accuracy'] == pytest.approx(accuracy)
    assert scores['accuracy_one_to_one'] == pytest.approx(one_to_one)
    assert scores['largest_cluster'] == pytest.approx(largest)


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.uint64])
def test_other_integers(dtype):
    # 250 * 250 would not fit into a byte
    predictions, targets = np.array([250, 250, 7]), np.array([250, 3, 3])
    assert clustering_scores(
        predictions.astype(dtype), targets.astype(dtype)
    ) == clustering_scores(predictions, targets)


@pytest.mark.parametrize(
    ('predictions', 'targets', 'message'),
    [
        ([], [], 'predictions are empty'),
        ([1], [], 'targets are empty'),
        ([1, 2], [1, 2, 3], '2 predictions and 3 targets'),
        ([0, -1], [0, 1], 'predictions must be .* smallest -1'),
        ([0, 1], [0, -2], 'targets must be .* smallest -2'),
        ([0.0, 1.0], [0, 1], 'predictions must be .* float64'),
        ([0, 1], [True, False], 'targets must be .* bool'),
        ([[0], [1]], [0, 1], r'predictions must be .* \(2, 1\)'),
    ],
)
@pytest.mark.parametrize('function', [match_clusters, clustering_scores])
def test_bad_input(function, predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        function(np.array(predictions), np.array(targets))
    with pytest.raises(ValueError, match=message):
        superclass_scores(
            np.array(predictions), np.array(targets), np.arange(9)
        )


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('clusters', [4, 8, 13])
def test_superclasses_against_a_loop(clusters, seed):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 8, 400)
    predictions = (targets + rng.integers(0, 4, 400) ** 2) % clusters
    superclasses = np.array([2, 0, 0, -1, 5, 2, -1, 5])
    kept = [i for i in range(400) if superclasses[targets[i]] != -1]
    fine = [int(targets[i]) for i in kept]
    cluster = [int(predictions[i]) for i in kept]
    # its own correctness is tested above
    match = match_clusters(np.array(cluster), np.array(fine))
    found = [int(superclasses[match[c]]) for c in cluster]
    truth = [int(superclasses[t]) for t in fine]
    scores = superclass_scores(predictions, targets, superclasses)
    check_information(scores, cluster, fine, 'fine_')
    check_information(scores, found, truth, 'coarse_')
    for level, pairs in (
        ('fine', [(match[c], t) for c, t in zip(cluster, fine, strict=True)]),
        ('coarse', list(zip(found, truth, strict=True))),
    ):
        hits = sum(a == b for a, b in pairs)
        assert scores[f'{level}_accuracy'] == pytest.approx(
            100 * hits / len(kept)
        )
    assert scores['superclasses'] == 3
    assert scores['images'] == len(kept) < 400


def test_matching_is_of_the_classes_that_count():
    # with class 1, cluster 0 would stand for it
    predictions = np.repeat([0, 0, 1], [2, 9, 4])
    targets = np.repeat([0, 1, 2], [2, 9, 4])
    scores = superclass_scores(predictions, targets, np.array([0, -1, 1]))
    assert scores['fine_accuracy'] == 100
    assert scores['coarse_accuracy'] == 100
    assert scores['images'] == 6


def test_superclasses_are_not_matched_themselves():
    # best of the classes: 0 - 2, 1 - 0; of the superclasses it would be
    # 0 - {0, 1} and 1 - {2}, with 10 images
    predictions = np.repeat([0, 0, 0, 1, 1], [3, 3, 4, 5, 4])
    targets = np.repeat([0, 1, 2, 0, 2], [3, 3, 4, 5, 4])
    scores = superclass_scores(predictions, targets, np.array([0, 0, 1]))
    assert scores['fine_accuracy'] == pytest.approx(100 * 9 / 19)
    assert scores['coarse_accuracy'] == pytest.approx(100 * 9 / 19)


@pytest.mark.parametrize(
    ('superclasses', 'message'),
    [
        ([0, 0], 'Class 2 occurs, but superclasses has only 2'),
        ([-1, -1, -1], 'None of the 3 images'),
        ([0, -2, 1], 'smallest -2'),
        ([0.0, 1.0, 1.0], 'float64'),
        ([[0, 1, 1]], r'\(1, 3\)'),
    ],
)
def test_bad_superclasses(superclasses, message):
    with pytest.raises(ValueError, match=message):
        superclass_scores(
            np.array([0, 1, 1]), np.array([0, 1, 2]), np.array(superclasses)
        )
