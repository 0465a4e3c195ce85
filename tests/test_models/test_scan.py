"""SCAN against the formula in float64, and on two processes as on one."""

import math

import numpy as np
import pytest
import torch
from gloo import WORLD_SIZE, run_on_two
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mm_rotssl.models import SCAN, ScanHead, SelfLabel, scan_loss
from mm_rotssl.models.utils import cluster_usage, mean_over_processes
from mm_rotssl.registry import MODELS

ROWS, CLASSES = 12, 4


def draw(seed, scale=2.0, rows=ROWS):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, CLASSES, generator=generator)


def reference(anchors, neighbors, weight):
    """Row by row; the gradient is that of autograd in float64."""
    total, mean = 0, 0
    for own, other in zip(anchors, neighbors, strict=True):
        p, q = (row.exp() / row.exp().sum() for row in (own, other))
        total = total - (p * q).sum().log()
        mean = mean + p / len(anchors)
    entropy = -sum(m * m.log() for m in mean)
    return total / len(anchors) - weight * entropy


@pytest.mark.parametrize('weight', [1.0, 5.0])
def test_loss_and_gradient(weight):
    tensors = [draw(0).requires_grad_(), draw(1).requires_grad_()]
    loss, logs = scan_loss(*tensors, weight)
    loss.backward()
    twins = [t.detach().double().requires_grad_() for t in tensors]
    want = reference(*twins, weight)
    want.backward()
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    for tensor, twin in zip(tensors, twins, strict=True):
        np.testing.assert_allclose(
            tensor.grad, twin.grad, rtol=1e-4, atol=1e-6
        )
    assert loss.item() == pytest.approx(
        (logs['consistency'] - weight * logs['entropy']).item(), rel=1e-6
    )


def test_values_that_are_known():
    uniform = torch.zeros(8, CLASSES)
    assert scan_loss(uniform, uniform)[0].item() == pytest.approx(
        -4 * math.log(CLASSES), rel=1e-6
    )
    sure = 50 * torch.eye(CLASSES).repeat(2, 1)
    assert scan_loss(sure, sure)[0].item() == pytest.approx(
        -5 * math.log(CLASSES), rel=1e-6
    )
    together = 50 * torch.eye(CLASSES)[:1].repeat(8, 1)
    assert scan_loss(together, together)[0].item() == pytest.approx(
        0, abs=1e-5
    )


def test_logarithms_are_bounded():
    """Of neighbors that can not be in the same class."""
    own = (500 * torch.eye(CLASSES)).requires_grad_()
    loss, logs = scan_loss(own, own.detach().roll(1, 0))
    assert logs['consistency'] == 100
    loss.backward()
    assert own.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    own, other = draw(0).to(dtype), draw(1).to(dtype)
    loss, _ = scan_loss(own, other)
    assert loss.dtype == torch.float32
    want = reference(own.double(), other.double(), 5.0)
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)


class Classifier(nn.Module):
    """Both losses of a head, on features."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = ScanHead(CLASSES, 3, num_heads=2)

    def forward(self, own, other):
        found = self.head.loss(own, other)
        # so many are sure
        sure = self.head.self_label_loss(own, other, 0.4, balanced=True)
        return found['loss'] + sure['loss'], {**found, **sure}


def step(model, rows):
    loss, logs = model(draw(0)[rows], draw(1)[rows])
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters()}
    return dict(
        loss=loss.detach(),
        grads=grads,
        logs={
            k: logs[k].item()
            for k in ('entropy', 'confident', 'classes_in_use')
        },
    )


def on_a_rank(rank):
    model = DistributedDataParallel(Classifier())
    return step(model, slice(rank * ROWS // 2, (rank + 1) * ROWS // 2))


def test_two_processes_equal_one():
    want = step(Classifier(), slice(None))
    ranks = run_on_two(on_a_rank)
    mean = sum(found['loss'] for found in ranks) / WORLD_SIZE
    torch.testing.assert_close(mean, want['loss'])
    for found in ranks:
        assert found['logs'] == pytest.approx(want['logs'], rel=1e-5)
        for name, grad in want['grads'].items():
            torch.testing.assert_close(
                found['grads'][f'module.{name}'], grad, rtol=1e-4, atol=1e-6
            )
    # the entropy of a half is another one
    half = step(Classifier(), slice(ROWS // 2))
    assert half['logs']['entropy'] != pytest.approx(want['logs']['entropy'])


def averaged(rank):
    values = torch.tensor([1.0 + rank, 5.0]).requires_grad_()
    mean = mean_over_processes(values)
    # each process has a loss of its own
    ((1 + rank) * mean.square()).sum().backward()
    usage = cluster_usage(torch.eye(3)[[rank, rank]])
    return dict(mean=mean.detach(), grad=values.grad, usage=usage)


def test_mean_over_processes():
    ranks = run_on_two(averaged)
    mean = torch.tensor([1.5, 5.0])
    for found in ranks:
        assert torch.equal(found['mean'], mean)
        # half of the sum of both losses' gradients
        torch.testing.assert_close(found['grad'], (1 + 2) * 2 * mean / 2)
        assert found['usage']['classes_in_use'] == 2
        assert found['usage']['marginal_entropy'].item() == pytest.approx(
            math.log(2) / math.log(3)
        )


@pytest.mark.parametrize('balanced', [False, True])
def test_self_labels(balanced):
    torch.manual_seed(0)
    head = ScanHead(5, CLASSES)
    weak, strong = torch.randn(20, 5), torch.randn(20, 5).requires_grad_()
    found = head.self_label_loss(weak, strong, 0.35, balanced)
    found['loss'].backward()
    twin = strong.detach().double().requires_grad_()
    weight, bias = (
        p.detach().double() for p in head.classifiers[0].parameters()
    )
    p = (weak.double() @ weight.T + bias).softmax(1)
    sure = [i for i in range(20) if p[i].max() > 0.35]
    assert 3 < len(sure) < 20
    labels = {i: int(p[i].argmax()) for i in sure}
    counts = {y: list(labels.values()).count(y) for y in labels.values()}
    assert len(counts) > 1
    total, norm = 0, 0
    for i in sure:
        w = len(sure) / counts[labels[i]] if balanced else 1.0
        row = twin[i] @ weight.T + bias
        total = total + w * (row.exp().sum().log() - row[labels[i]])
        norm += w
    (total / norm).backward()
    assert found['loss'].item() == pytest.approx(
        (total / norm).item(), rel=1e-5
    )
    assert found['confident'].item() == pytest.approx(5 * len(sure))
    np.testing.assert_allclose(strong.grad, twin.grad, rtol=1e-4, atol=1e-7)


def test_nobody_is_sure():
    head = ScanHead(5, CLASSES)
    strong = torch.randn(6, 5).requires_grad_()
    found = head.self_label_loss(torch.zeros(6, 5), strong, 0.99, True)
    assert found['loss'] == 0
    assert found['confident'] == 0
    found['loss'].backward()
    assert not strong.grad.any()
    for parameter in head.parameters():
        assert not parameter.grad.any()


def test_the_classifier_of_the_lowest_loss_predicts():
    head = ScanHead(CLASSES, CLASSES, num_heads=3)
    with torch.no_grad():
        for classifier in head.classifiers:
            classifier.weight.zero_()
            classifier.bias.zero_()
        # sure, and right with both of each pair
        head.classifiers[2].weight.copy_(20 * torch.eye(CLASSES))
    rows = torch.eye(CLASSES).repeat(2, 1)
    assert head.best == 0
    losses = head.loss(rows, rows)
    assert head.best == 2
    assert losses['consistency'] < 0.01
    torch.testing.assert_close(head(rows), head.classifiers[2](rows))
    # what is measured in between does not choose
    before = head.mean_losses.clone()
    head.eval()
    head.loss(rows, rows.roll(1, 0))
    assert torch.equal(head.mean_losses, before)
    with pytest.raises(ValueError, match='num_heads=0'):
        ScanHead(4, 4, num_heads=0)


NIN = dict(type='mm_rotssl.NIN', base_channels=6, num_stages=3)
HEAD = dict(type='mm_rotssl.ScanHead', in_channels=6, num_classes=CLASSES)


def test_algorithms():
    torch.manual_seed(0)
    images, others = torch.randn(2, 4, 3, 8, 8)
    scan = SCAN(backbone=NIN, head=HEAD)
    pooled = [scan.backbone(x)[-1].mean((2, 3)) for x in (images, others)]
    logits = [scan.head.classifiers[0](x) for x in pooled]
    found = scan.loss([images, others])
    torch.testing.assert_close(found['loss'], scan_loss(*logits)[0])
    found['loss'].backward()
    assert next(scan.backbone.parameters()).grad.any()
    with pytest.raises(ValueError, match=r'SCAN needs .*NeighborPairs'):
        scan.loss(images)

    label = SelfLabel(backbone=NIN, head=HEAD, threshold=0.0)
    label.load_state_dict(scan.state_dict())
    # of the images as they are no gradient
    images.requires_grad_()
    found = label.loss([images, others.requires_grad_()])
    found['loss'].backward()
    assert images.grad is None
    assert others.grad.any()
    assert found['confident'] == 100
    with pytest.raises(ValueError, match=r'SelfLabel needs two views'):
        label.loss([images])
    with pytest.raises(ValueError, match='threshold=1 of'):
        SelfLabel(backbone=NIN, head=HEAD, threshold=1)


def test_predictions():
    scan = SCAN(backbone=NIN, head=HEAD)
    scan.eval()
    images = torch.randn(3, 3, 8, 8)
    samples = scan(images, [DataSample() for _ in range(3)], mode='predict')
    with torch.no_grad():
        want = scan.head.classifiers[0](scan.backbone(images)[-1].mean((2, 3)))
    for sample, row in zip(samples, want.softmax(1), strict=True):
        torch.testing.assert_close(sample.pred_score, row)
        assert sample.pred_label.tolist() == [int(row.argmax())]


def test_labels_do_not_reach_the_loss():
    losses = []
    for labels in ([0, 1], [1, 1]):
        torch.manual_seed(0)
        scan = SCAN(backbone=NIN, head=HEAD)
        samples = [DataSample().set_gt_label(label) for label in labels]
        views = [torch.randn(2, 3, 8, 8) for _ in range(2)]
        losses.append(scan.loss(views, samples)['loss'])
    assert losses[0] == losses[1]


def test_as_a_part_of_another_algorithm():
    """Rotation beside it, of one more crop; and as a task."""
    rotation = dict(type='mm_rotssl.RotationHead', in_channels=6)
    pooling = dict(type='mmpretrain.GlobalAveragePooling')
    scan = dict(type='mm_rotssl.SCAN', head=HEAD)
    torch.manual_seed(0)
    essl = MODELS.build(
        dict(
            type='mm_rotssl.ESSL',
            algorithm=dict(scan, backbone=NIN),
            neck=pooling,
            head=rotation,
        )
    )
    task = MODELS.build(
        dict(
            type='mm_rotssl.MultiTask',
            backbone=NIN,
            tasks=dict(
                classes=scan,
                rotation=dict(
                    type='mm_rotssl.RotNet', neck=pooling, head=rotation
                ),
            ),
        )
    )
    views = [torch.randn(4, 3, 8, 8) for _ in range(3)]
    found = [
        essl.loss(views, None),
        task.loss(
            dict(
                classes=dict(inputs=views[:2], data_samples=None),
                rotation=dict(inputs=views[2], data_samples=None),
            )
        ),
    ]
    for model, losses, name in zip(
        (essl, task), found, ('algorithm', 'classes'), strict=True
    ):
        part = model.tasks[name]
        rows = [model.backbone(x)[-1].mean((2, 3)) for x in views[:2]]
        want, _ = scan_loss(*(part.head.classifiers[0](x) for x in rows))
        torch.testing.assert_close(losses[f'loss_{name}'], want)
        model.parse_losses(losses)[0].backward()
        assert next(model.backbone.parameters()).grad.any()
