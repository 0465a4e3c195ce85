"""Instance discrimination as an algorithm of its own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from mm_rotssl.models import NPID, MemoryBank
from mm_rotssl.registry import MODELS

IMAGES = 9


def build(**head):
    torch.manual_seed(0)
    # from which the rows of the bank are drawn
    np.random.seed(0)
    return NPID(
        backbone=dict(type='mm_rotssl.NIN', base_channels=6, num_stages=3),
        head=dict(
            in_channels=6,
            memory=dict(feat_dim=4, length=IMAGES),
            temperature=0.5,
            **head,
        ),
    )


def samples(indices, labels=None):
    found = [DataSample(metainfo=dict(sample_idx=i)) for i in indices]
    for sample, label in zip(found, labels or (), strict=False):
        sample.set_gt_label(label)
    return found


def test_all_images_are_compared_unless_said_otherwise():
    model = build()
    bank = model.head.memory.feature_bank.clone()
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        pooled = model.backbone(images)[-1].mean((2, 3))
        v = F.normalize(model.head.fc(pooled))
    # in training mode once more: the running statistics are of no account
    found = model.loss(images, samples([4, 0, 8]))
    scores = v @ bank.T / 0.5
    want = F.cross_entropy(scores, torch.tensor([4, 0, 8]))
    torch.testing.assert_close(found['loss'], want, rtol=1e-4, atol=1e-5)
    assert set(found) == {'loss', 'chance_ratio'}
    changed = (model.head.memory.feature_bank != bank).any(1)
    assert changed.nonzero().flatten().tolist() == [0, 4, 8]
    found['loss'].backward()
    assert all(p.grad.abs().sum() > 0 for p in model.head.parameters())
    assert next(model.backbone.parameters()).grad.abs().sum() > 0


def test_what_the_report_calls_its_embedding():
    model = build()
    model.eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        feats = model(images, mode='tensor')
        rows = model.project(feats)
        want = F.normalize(model.head.fc(feats[-1].mean((2, 3))))
    torch.testing.assert_close(rows, want)


def test_labels_do_not_reach_the_loss():
    losses = []
    for labels in ([0, 1, 2], [2, 2, 0]):
        model = build(num_negatives=5)
        torch.manual_seed(1)
        images = torch.randn(3, 3, 8, 8)
        losses.append(model.loss(images, samples([1, 2, 3], labels))['loss'])
    assert losses[0] == losses[1]


def test_what_it_can_not_train_on():
    model = build()
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r'one view.*got 2.*MultiView'):
        model.loss([images, images], samples([0, 1]))
    with pytest.raises(ValueError, match='no sample_idx'):
        model.loss(images, [DataSample(), DataSample()])


def test_from_a_config():
    model = MODELS.build(
        dict(
            type='mm_rotssl.NPID',
            backbone=dict(type='mm_rotssl.NIN', base_channels=6),
            head=dict(
                in_channels=6,
                num_negatives=16,
                loss=dict(type='mm_rotssl.NCELoss', z='running_mean'),
            ),
        )
    )
    assert model.head.by_nce
    assert model.head.num_negatives == 16
    assert isinstance(model.head.memory, MemoryBank)
