import math

import numpy as np
import pytest
import torch
from gloo import run_on_two
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from mm_rotssl.evaluation import (
    ClusteringMetric,
    clustering_scores,
    superclass_scores,
)
from mm_rotssl.registry import METRICS

CLASSES = ['oak', 'elm', 'rose', 'stone']
# by hand: flower is 0, tree is 1
SUPERCLASSES = np.array([1, 1, 0, -1])


@pytest.fixture
def hierarchy(tmp_path):
    path = tmp_path / 'plants.csv'
    path.write_text(
        'class,superclass\noak,tree\nelm,tree\nrose,flower\nivy,climber\n'
    )
    return dict(path=str(path))


def make_labels():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 17)
    return np.where(rng.random(17) < 0.7, targets + 2, 0), targets


def run_metric(rank, world_size, hierarchy=None):
    """What a loop with a padding DefaultSampler does, in batches of 4."""
    predictions, targets = make_labels()
    evaluator = Evaluator(ClusteringMetric(hierarchy=hierarchy))
    evaluator.dataset_meta = dict(classes=CLASSES)
    size = len(targets)
    per_rank = math.ceil(size / world_size)
    padded = [i % size for i in range(per_rank * world_size)]
    mine = padded[rank::world_size]
    for start in range(0, len(mine), 4):
        evaluator.process(
            [
                DataSample()
                .set_gt_label(int(targets[i]))
                .set_pred_label(int(predictions[i]))
                for i in mine[start : start + 4]
            ]
        )
    return evaluator.evaluate(size)


@pytest.mark.filterwarnings('ignore:.*lacks 1 of the 4')
def test_on_one_and_two_processes(hierarchy):
    predictions, targets = make_labels()
    fine = clustering_scores(predictions, targets)
    coarse = superclass_scores(predictions, targets, SUPERCLASSES)
    assert coarse['images'] < 17
    without = {f'cluster/{name}': x for name, x in fine.items()}
    expected = {f'cluster/{name}': x for name, x in {**fine, **coarse}.items()}
    # the image that pads the last batch would change it
    twice = [np.append(a, a[0]) for a in (predictions, targets)]
    assert clustering_scores(*twice)['ari'] != fine['ari']
    assert run_metric(0, 1) == pytest.approx(without)
    assert run_metric(0, 1, hierarchy) == pytest.approx(expected)
    for out in run_on_two(run_metric, 2, hierarchy):
        assert out == pytest.approx(expected)


def test_by_hand():
    metric = METRICS.build(dict(type='mm_rotssl.ClusteringMetric'))
    # clusters 9 and 4 stand for class 0 and 1; the second round is another
    for clusters, accuracy in (([9, 9, 4, 9], 75), ([4, 4, 9, 9], 100)):
        for cluster, label in zip(clusters, (0, 0, 1, 1), strict=True):
            metric.process(
                None,
                [
                    dict(
                        pred_label=torch.tensor([cluster]),
                        gt_label=torch.tensor([label]),
                    )
                ],
            )
        scores = metric.evaluate(4)
        assert scores['cluster/accuracy'] == accuracy
        assert scores['cluster/clusters_in_use'] == 2


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        ('pred_label', 'no pred_label: predict of the algorithm'),
        ('gt_label', 'no gt_label: .*PackInputs'),
    ],
)
def test_samples_without_labels(missing, message):
    sample = dict(pred_label=torch.tensor([0]), gt_label=torch.tensor([0]))
    del sample[missing]
    with pytest.raises(KeyError, match=message):
        ClusteringMetric().process(None, [sample])


@pytest.mark.parametrize('bad', [dict(level=3), dict(path='a', depth=3), {}])
def test_bad_hierarchy(bad):
    with pytest.raises(ValueError, match='must have path'):
        ClusteringMetric(hierarchy=bad)


def test_mistakes_show_before_training(tmp_path, hierarchy):
    evaluator = Evaluator(ClusteringMetric(hierarchy=hierarchy))
    for meta in ({}, dict(classes=None), None):
        with pytest.raises(ValueError, match=r'classes=\[\.\.\.\]'):
            evaluator.dataset_meta = meta
    with pytest.raises(ValueError, match='none of the 2 classes'):
        evaluator.dataset_meta = dict(classes=['a', 'b'])
    path = str(tmp_path / 'nowhere.csv')
    evaluator = Evaluator(ClusteringMetric(hierarchy=dict(path=path)))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        evaluator.dataset_meta = dict(classes=CLASSES)


def test_level_and_ancestor_are_passed_on(hierarchy):
    metric = ClusteringMetric(hierarchy=dict(**hierarchy, level=7))
    with pytest.raises(ValueError, match='level=7'):
        metric.dataset_meta = dict(classes=CLASSES)


def test_hierarchy_without_data_set(hierarchy):
    metric = ClusteringMetric(hierarchy=hierarchy)
    metric.process(
        None, [dict(pred_label=torch.tensor([0]), gt_label=torch.tensor([0]))]
    )
    with pytest.raises(ValueError, match='dataset_meta'):
        metric.evaluate(1)


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match='empty'):
        ClusteringMetric().evaluate(0)
