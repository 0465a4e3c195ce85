import pytest
import torch

from mm_rotssl.evaluation import RotationAccuracy


def test_counts_every_copy():
    metric = RotationAccuracy()
    # image 1: copies 0 and 2 recognized; image 2: copies 0, 1, 2
    first = torch.eye(3)[[0, 2, 2]]
    second = torch.eye(3)
    second[0] = torch.tensor([0.4, 0.3, 0.3])
    metric.process(None, [dict(rotation_scores=s) for s in (first, second)])
    # a repeated image that pads the last batch
    metric.process(None, [dict(rotation_scores=1 - torch.eye(3))])
    assert metric.evaluate(2) == pytest.approx(
        {
            'rotation/accuracy': 100 * 5 / 6,
            'rotation/accuracy_0': 100,
            'rotation/accuracy_1': 50,
            'rotation/accuracy_2': 100,
        }
    )


def test_other_algorithm():
    with pytest.raises(KeyError, match='val_evaluator'):
        RotationAccuracy().process(None, [dict(gt_label=0)])


def test_of_divided_features():
    metric = RotationAccuracy()
    unrelated = torch.eye(4)[[0, 0, 0, 3]]
    for scores in (torch.eye(4)[[0, 1, 2, 0]], torch.eye(4)):
        metric.process(
            None,
            [
                dict(
                    rotation_scores=scores, unrelated_rotation_scores=unrelated
                )
            ],
        )
    found = metric.evaluate(2)
    assert found['rotation/accuracy'] == pytest.approx(100 * 7 / 8)
    assert found['rotation/accuracy_3'] == pytest.approx(50)
    assert found['rotation/unrelated_accuracy'] == pytest.approx(50)
