import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample

from mm_rotssl.registry import METRICS, MODELS

CHANNELS = (3, 5)


def build(**settings):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mm_rotssl.MultiLinearHead',
            in_channels=CHANNELS,
            num_classes=4,
            values=50,
        )
        | settings
    )


def maps():
    torch.manual_seed(1)
    return [2 + torch.randn(6, c, 9, 9) for c in CHANNELS]


def samples():
    return [DataSample().set_gt_label(i % 4) for i in range(6)]


@pytest.mark.parametrize('pool', ['max', 'avg'])
def test_each_stage_by_itself(pool):
    head = build(pool=pool).train()
    feats = maps()
    losses = head.loss(feats, samples())
    assert list(losses) == ['loss_stage1', 'loss_stage2']
    target = torch.arange(6) % 4
    # 3 x 16 and 5 x 9 numbers
    for i, (feat, side) in enumerate(zip(feats, (4, 3), strict=True)):
        cells = getattr(F, f'adaptive_{pool}_pool2d')(feat.double(), side)
        cells = cells.numpy()
        scaled = cells - cells.mean((0, 2, 3), keepdims=True)
        scaled /= np.sqrt(cells.var((0, 2, 3), keepdims=True) + 1e-5)
        linear = head.classifiers[i][3]
        logits = (
            scaled.reshape(6, -1) @ linear.weight.detach().double().numpy().T
        )
        logits += linear.bias.detach().double().numpy()
        want = F.cross_entropy(torch.from_numpy(logits), target)
        torch.testing.assert_close(
            losses[f'loss_stage{i + 1}'].double(), want, rtol=1e-5, atol=0
        )
        sum(losses.values()).backward(retain_graph=True)
        assert linear.weight.grad.abs().max() > 0
    # a weight and a bias each: normalization has none
    assert len(list(head.parameters())) == 4


def test_sizes_of_the_official_networks():
    for channels, sizes in (
        ((64, 192, 384, 256, 256), (9216, 9408, 9600, 9216, 9216)),
        ((256, 512, 1024, 2048), (9216, 8192, 9216, 8192)),
    ):
        with torch.device('meta'):
            head = build(in_channels=channels, values=9000)
        found = tuple(one[3].in_features for one in head.classifiers)
        assert found == sizes


def test_accuracy_of_each_stage():
    init_default_scope('mmpretrain')
    head = build().eval()
    torch.manual_seed(3)
    metric = METRICS.build(dict(type='mm_rotssl.StageAccuracy', topk=(1, 2)))
    hits = []
    with torch.no_grad():
        for _ in range(5):
            feats = [torch.randn(6, c, 9, 9) for c in CHANNELS]
            labels = torch.randint(4, (6,))
            given = [DataSample().set_gt_label(int(k)) for k in labels]
            found = head.predict(feats, given)
            assert all(
                one is two for one, two in zip(found, given, strict=True)
            )
            metric.process(None, [sample.to_dict() for sample in found])
            best = torch.stack([x.topk(2).indices for x in head(feats)], 1)
            hits.append(best == labels[:, None, None])
    hits = torch.cat(hits).double().cumsum(2).mean(0)
    figures = metric.evaluate(30)
    assert figures == {
        f'accuracy/stage{i + 1}_top{k}': pytest.approx(
            100 * hits[i, k - 1].item()
        )
        for i in range(2)
        for k in (1, 2)
    }
    assert len({*figures.values()}) > 2
    # probabilities, also without samples
    scores = head.predict(maps())[0].stage_scores
    assert scores.shape == (2, 4)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


def test_a_constant_classifier_is_right_by_no_accident():
    metric = METRICS.build(dict(type='mm_rotssl.StageAccuracy', topk=(1, 4)))
    sample = dict(gt_label=torch.tensor([0]), stage_scores=torch.ones(1, 4))
    metric.process(None, [sample])
    assert metric.evaluate(1) == {
        'accuracy/stage1_top1': 0,
        'accuracy/stage1_top4': 100,
    }


def test_bad_use():
    with pytest.raises(ValueError, match="pool='sum' of MultiLinearHead"):
        build(pool='sum')
    with pytest.raises(ValueError, match=r'gives 1 stages.*has 2'):
        build()(maps()[:1])
    metric = METRICS.build(dict(type='mm_rotssl.StageAccuracy'))
    with pytest.raises(KeyError, match='no stage_scores'):
        metric.process(None, [dict(gt_label=torch.tensor([0]))])
