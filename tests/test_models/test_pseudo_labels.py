"""Pseudo-labels: bank, classifiers, labelers and the algorithm."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import WORLD_SIZE, run_on_two
from mmpretrain.structures import DataSample
from sklearn.metrics import normalized_mutual_info_score
from torch.nn.parallel import DistributedDataParallel

from mm_rotssl.models import (
    KMeansLabeler,
    LabelBank,
    MemoryBank,
    PseudoLabel,
    PseudoLabelHead,
    SinkhornLabeler,
    SobelDataPreprocessor,
)
from mm_rotssl.ops import kmeans, sinkhorn, sobel, whiten

CHANNELS, ROWS = 5, 12


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def labels_of(seed=1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.stack(
        [torch.randint(k, (ROWS,), generator=generator) for k in (4, 7)]
    )
    # not as many of both halves
    labels[0, [2, 3]] = labels[1, [0, 4, 5, 9]] = -100
    return labels


# ------------------------------- classifiers ------------------------------


def reference(head, feats, labels, balanced):
    """A row at a time, in float64."""
    total = 0
    for number, classifier in enumerate(head.classifiers):
        weight, bias = (
            p.detach().double().requires_grad_()
            for p in classifier.parameters()
        )
        known = [y for y in labels[number].tolist() if y >= 0]
        rows = 0
        for row, y in zip(feats, labels[number].tolist(), strict=True):
            if y < 0:
                continue
            scores = (weight @ row + bias) / head.temperature
            share = (
                len(known) / (len(set(known)) * known.count(y))
                if balanced
                else 1.0
            )
            rows = rows + share * (scores.exp().sum().log() - scores[y])
        total = total + rows / len(known)
    return total / len(head.classifiers)


@pytest.mark.parametrize('balanced', [False, True])
def test_loss_and_gradient(balanced):
    torch.manual_seed(0)
    head = PseudoLabelHead(
        CHANNELS, (4, 7), temperature=0.5, balanced=balanced
    )
    labels = labels_of()
    for number in range(2):
        head.set_weights(number, labels[number])
    feats = draw(ROWS, CHANNELS).requires_grad_()
    found = head.loss(feats, labels)
    found['loss'].backward()
    twin = feats.detach().double().requires_grad_()
    want = reference(head, twin, labels, balanced)
    want.backward()
    assert found['loss'].item() == pytest.approx(want.item(), rel=1e-5)
    np.testing.assert_allclose(feats.grad, twin.grad, rtol=1e-4, atol=1e-6)
    chance = (math.log(4) + math.log(7)) / 2
    assert found['chance_ratio'].item() == pytest.approx(
        want.item() / chance, rel=1e-5
    )
    predicted = head(feats)[0].argmax(1)
    known = labels[0] >= 0
    right = (predicted == labels[0])[known].double().mean().item()
    assert found['label_accuracy'].item() == pytest.approx(100 * right)


def test_weights_of_classes():
    head = PseudoLabelHead(CHANNELS, 4, balanced=True)
    labels = torch.tensor([0, 0, 0, 2, -100, 2, 3])
    head.set_weights(0, labels)
    # of six labels and three classes that occur
    assert head.weights0.tolist() == pytest.approx([6 / 9, 0, 1, 2])
    known = labels[labels >= 0]
    assert head.weights0[known].mean().item() == pytest.approx(1)


def test_nothing_is_labeled():
    head = PseudoLabelHead(CHANNELS, (4, 7))
    feats = draw(ROWS, CHANNELS).requires_grad_()
    found = head.loss(feats, torch.full((2, ROWS), -100))
    assert found['loss'] == 0
    found['loss'].backward()
    assert not feats.grad.any()
    assert not any(p.grad.any() for p in head.parameters())
    assert found['label_accuracy'] == 0


def test_weights_are_drawn_anew():
    head = PseudoLabelHead(400, 30, init_std=0.01)
    first = head.classifiers[0].weight.clone()
    assert first.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.classifiers[0].bias.any()
    for _ in range(2):
        head.reset(0, torch.Generator().manual_seed(5))
        second = head.classifiers[0].weight.clone()
        assert not torch.equal(first, second)
        head.reset(0, torch.Generator().manual_seed(6))
    head.reset(0, torch.Generator().manual_seed(5))
    assert torch.equal(head.classifiers[0].weight, second)
    # PyTorch's own
    plain = PseudoLabelHead(400, 30)
    drawn = []
    for seed in (5, 6, 5):
        plain.reset(0, torch.Generator().manual_seed(seed))
        drawn.append(plain.classifiers[0].weight.clone())
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    for values in plain.classifiers[0].parameters():
        assert values.abs().max() <= 0.05
        assert values.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.2)


def test_prototypes():
    head = PseudoLabelHead(CHANNELS, (3, 4), prototypes=True)
    assert not any(p.requires_grad for p in head.parameters())
    assert {n for n, _ in head.named_parameters()} == {
        'classifiers.0.weight',
        'classifiers.1.weight',
    }
    centroids = draw(4, CHANNELS)
    head.set_prototypes(1, centroids)
    feats = draw(2, CHANNELS, seed=3)
    torch.testing.assert_close(head(feats)[1], feats @ centroids.T)


@pytest.mark.parametrize(
    'settings',
    [
        dict(in_channels=0),
        dict(num_classes=()),
        dict(num_classes=(3, 0)),
        dict(temperature=0),
    ],
)
def test_bad_numbers(settings):
    with pytest.raises(ValueError, match='PseudoLabelHead must be positive'):
        PseudoLabelHead(**{**dict(in_channels=4, num_classes=3), **settings})


class Loss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = PseudoLabelHead(CHANNELS, (4, 7), balanced=True)
        for number, labels in enumerate(labels_of()):
            self.head.set_weights(number, labels)

    def forward(self, feats, labels):
        return self.head.loss(feats, labels)['loss']


def gradients(model, part):
    loss = model(draw(ROWS, CHANNELS)[part], labels_of()[:, part])
    loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    return dict(loss=loss.detach(), grads=grads)


def loss_on_a_rank(rank):
    part = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    return gradients(DistributedDataParallel(Loss()), part)


def test_two_processes_equal_one():
    want = gradients(Loss(), slice(None))
    ranks = run_on_two(loss_on_a_rank)
    mean = sum(found['loss'] for found in ranks) / WORLD_SIZE
    torch.testing.assert_close(mean, want['loss'])
    for found in ranks:
        for name, grad in want['grads'].items():
            torch.testing.assert_close(found['grads'][f'module.{name}'], grad)


# ----------------------------- labels and rows -----------------------------


def banks(rank):
    bank = LabelBank(2)
    bank.bind_dataset([str(i) for i in range(6)])
    indices = [torch.tensor([4, 0, 1]), torch.tensor([2])][rank]
    bank.write(1, indices, indices + 10)
    rows = MemoryBank(3, length=4, dtype=['float32', 'float16'][0])
    rows.feature_bank.zero_()
    places = [torch.tensor([3]), torch.tensor([0, 3])][rank]
    feats = F.normalize(torch.tensor([[1.0, 2, 2], [0, 3, 4]]), dim=1)
    rows.fill(places, feats[: len(places)])
    return dict(labels=bank.labels, rows=rows.feature_bank)


def test_banks_of_two_processes():
    first = F.normalize(torch.tensor([1.0, 2, 2]), dim=0)
    both = first + F.normalize(torch.tensor([0.0, 3, 4]), dim=0)
    for found in run_on_two(banks):
        assert found['labels'][0].tolist() == [-100] * 6
        assert found['labels'][1].tolist() == [10, 11, 12, -100, 14, -100]
        torch.testing.assert_close(found['rows'][0], first)
        # of what both have the mean
        torch.testing.assert_close(found['rows'][3], F.normalize(both, dim=0))
        assert not found['rows'][1:3].any()


def test_label_bank():
    bank = LabelBank(2)
    with pytest.raises(RuntimeError, match='RelabelHook'):
        bank.read(torch.tensor([0]))
    bank.bind_dataset(['a', 'b', 'c'])
    bank.write(0, torch.tensor([2, 0]), torch.tensor([7, 8]))
    bank.stamp.fill_(5)
    assert bank.read(torch.tensor([2, 1, 0])).tolist() == [
        [7, -100, 8],
        [-100] * 3,
    ]
    # an image that is left out the next time has no label then
    bank.write(0, torch.tensor([1]), torch.tensor([3]))
    assert bank.labels[0].tolist() == [-100, 3, -100]
    # a checkpoint is read without the dataset
    other = LabelBank(2)
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.labels, bank.labels)
    assert (other.stamp, other.fingerprint) == (bank.stamp, bank.fingerprint)


# --------------------------------- labelers --------------------------------


def rows_of_clusters(count=40):
    centers = 6 * draw(4, CHANNELS, seed=7)
    return centers[torch.arange(count) % 4] + draw(count, CHANNELS, seed=8)


@pytest.mark.parametrize(
    ('channels', 'prototypes'), [(None, False), (3, False), (None, True)]
)
def test_kmeans_labels(channels, prototypes, monkeypatch):
    starts = []

    def spy(rows, start, iterations, spherical):
        starts.append((rows, start))
        assert (iterations, spherical) == (9, prototypes)
        return kmeans(rows, start, iterations, spherical)

    monkeypatch.setattr('mm_rotssl.models.utils.labelers.kmeans', spy)
    head = PseudoLabelHead(CHANNELS, 6, prototypes=prototypes)
    feats = rows_of_clusters()
    if prototypes:
        feats = F.normalize(feats, dim=1)
    # some images have no features
    indices = torch.arange(40) * 2 + 1
    labeler = KMeansLabeler(9, channels)
    labels, centroids = labeler(
        feats, indices, head, 0, np.random.default_rng(3)
    )
    rows, start = starts[0]
    want = feats
    if channels is not None:
        want = F.normalize(whiten(feats, channels), dim=1)
    torch.testing.assert_close(rows, want)
    # rows of six images
    found = [(want - one).abs().sum(1).argmin().item() for one in start]
    assert len(set(found)) == 6
    torch.testing.assert_close(start, want[found])
    assert torch.equal(labels, kmeans(want, start, 9, prototypes)[0])
    assert len(centroids) == 6
    # others the next time, and the same by the same numbers
    labeler(feats, indices, head, 0, np.random.default_rng(4))
    labeler(feats, indices, head, 0, np.random.default_rng(3))
    assert not torch.equal(starts[1][1], start)
    assert torch.equal(starts[2][1], start)


def test_fewer_images_than_clusters():
    head = PseudoLabelHead(CHANNELS, 6)
    with pytest.raises(ValueError, match=r'num_classes=6, .* only 5 images'):
        KMeansLabeler()(
            draw(5, CHANNELS),
            torch.arange(5),
            head,
            0,
            np.random.default_rng(0),
        )


def test_sinkhorn_labels():
    torch.manual_seed(0)
    head = PseudoLabelHead(CHANNELS, (3, 4), temperature=0.5)
    feats = rows_of_clusters()
    labels, centroids = SinkhornLabeler(0.05, 1e-3)(
        feats, torch.arange(40), head, 1, np.random.default_rng(0)
    )
    assert centroids is None
    assert labels.bincount(minlength=4).tolist() == [10] * 4
    scores = head(feats)[1].log_softmax(1)
    want = sinkhorn(scores, 0.05, 10_000, 1e-3).argmax(1)
    assert torch.equal(labels, want)
    assert head(feats)[1].argmax(1).bincount().max() > 12


def label_on_a_rank(rank):
    part = slice(0, 15) if rank == 0 else slice(15, 40)
    head = PseudoLabelHead(CHANNELS, 6)
    return KMeansLabeler()(
        rows_of_clusters()[part],
        torch.arange(40)[part],
        head,
        0,
        np.random.default_rng(3),
    )


def test_labels_of_two_processes():
    head = PseudoLabelHead(CHANNELS, 6)
    want, centroids = KMeansLabeler()(
        rows_of_clusters(),
        torch.arange(40),
        head,
        0,
        np.random.default_rng(3),
    )
    ranks = run_on_two(label_on_a_rank)
    assert torch.equal(torch.cat([labels for labels, _ in ranks]), want)
    for _, found in ranks:
        torch.testing.assert_close(found, centroids)


# -------------------------------- algorithm --------------------------------

NIN = dict(type='mm_rotssl.NIN', base_channels=6, num_stages=3)
NECK = dict(
    type='mmpretrain.NonLinearNeck',
    in_channels=6,
    hid_channels=8,
    out_channels=4,
    with_avg_pool=False,
    norm_cfg=dict(type='BN1d'),
)


def build(memory=True, **settings):
    torch.manual_seed(0)
    np.random.seed(0)
    model = PseudoLabel(
        backbone=NIN,
        neck=NECK if memory else None,
        head=dict(
            type='mm_rotssl.PseudoLabelHead',
            in_channels=4 if memory else 6,
            num_classes=(3, 5, 4),
            prototypes=memory,
        ),
        labeler=dict(type='mm_rotssl.KMeansLabeler'),
        memory=dict(feat_dim=4) if memory else None,
        **settings,
    )
    names = [str(i) for i in range(20)]
    for bank in (model.bank, *model.memories):
        bank.bind_dataset(names)
    model.bank.labels[:] = torch.arange(20) % 3
    model.bank.stamp.zero_()
    return model


def samples(indices, labels=None):
    found = [DataSample(metainfo=dict(sample_idx=i)) for i in indices]
    for sample, label in zip(found, labels or (), strict=False):
        sample.set_gt_label(label)
    return found


def test_all_views_learn_the_label_and_crops_are_kept():
    model = build()
    views = [draw(3, 3, size, size, seed=size) for size in (8, 8, 6)]
    views[1] = views[1] + 1
    before = [memory.feature_bank.clone() for memory in model.memories]
    seen = {}

    def spy(feats, labels):
        seen.update(feats=feats, labels=labels)
        return PseudoLabelHead.loss(model.head, feats, labels)

    model.head.loss = spy
    losses = model.loss(views, samples([4, 11, 0]))
    assert seen['labels'].tolist() == [3 * [1, 2, 0]] * 3
    embeds = seen['feats'].unflatten(0, (3, 3))
    torch.testing.assert_close(embeds.norm(dim=2), torch.ones(3, 3))
    for crop, (memory, old) in enumerate(
        zip(model.memories, before, strict=True)
    ):
        new = memory.feature_bank
        torch.testing.assert_close(new[[4, 11, 0]], embeds[crop].detach())
        changed = (new != old).any(1).nonzero().flatten().tolist()
        assert changed == [0, 4, 11]
    losses['loss'].backward()
    assert next(model.backbone.parameters()).grad.any()


def test_labels_do_not_reach_the_loss():
    losses = []
    for labels in ([0, 1], [1, 1]):
        model = build(memory=False)
        found = model.loss(draw(2, 3, 8, 8), samples([3, 5], labels))
        losses.append(found['loss'])
    assert losses[0] == losses[1]


def test_what_it_can_not_train_on():
    model = build()
    with pytest.raises(ValueError, match=r'\(0, 1\) of .* has 1 views'):
        model.loss(draw(2, 3, 8, 8), samples([0, 1]))
    with pytest.raises(ValueError, match='no sample_idx'):
        model.loss([draw(1, 3, 8, 8)] * 2, [DataSample()])
    model.bank.stamp.fill_(-1)
    with pytest.raises(RuntimeError, match='RelabelHook'):
        model.loss([draw(2, 3, 8, 8)] * 2, samples([0, 1]))


def test_relabeling():
    """Classifiers take turns over two sets of features."""
    model = build()
    feats = F.normalize(draw(2, 20, 4), dim=2)
    previous = model.bank.labels[0].clone()
    indices = torch.arange(20)
    found = model.relabel(feats, indices, range(3), (7, 8))
    for number in range(3):
        rng = np.random.default_rng((7, 8, number))
        labels, centroids = model.labeler(
            feats[number % 2], indices, model.head, number, rng
        )
        assert torch.equal(model.bank.labels[number], labels)
        torch.testing.assert_close(
            model.head.classifiers[number].weight, centroids
        )
    counts = model.bank.labels[0].bincount()
    assert found['clusters_in_use'] == (counts > 0).sum()
    assert found['largest_cluster'] == 100 * counts.max().item() / 20
    want = normalized_mutual_info_score(previous, model.bank.labels[0])
    assert found['nmi_to_previous'] == pytest.approx(100 * want)
    assert found['nmi_to_previous'] < 99
    # of one of them only
    kept = model.bank.labels.clone()
    model.relabel(feats, indices, [1], (9, 9))
    assert torch.equal(model.bank.labels[[0, 2]], kept[[0, 2]])


def test_the_first_labels_have_none_before():
    model = build(memory=False, reset_head=True)
    model.bank.labels.fill_(-100)
    before = [c.weight.clone() for c in model.head.classifiers]
    found = model.relabel(draw(1, 20, 6), torch.arange(20), [0, 2], (1,))
    assert 'nmi_to_previous' not in found
    changed = [
        not torch.equal(old, c.weight)
        for old, c in zip(before, model.head.classifiers, strict=True)
    ]
    assert changed == [True, False, True]


def test_predictions_and_embeddings():
    for memory in (True, False):
        model = build(memory)
        model.eval()
        images = draw(2, 3, 8, 8)
        found = model(images, samples([0, 1]), mode='predict')
        with torch.no_grad():
            feats = model(images, mode='tensor')
            pooled = feats[-1].mean((2, 3))
            if memory:
                pooled = F.normalize(model.neck((pooled,))[0], dim=1)
                torch.testing.assert_close(model.project(feats), pooled)
            else:
                assert model.project(feats) is None
            scores = model.head(pooled)[0].softmax(1)
        for sample, row in zip(found, scores, strict=True):
            torch.testing.assert_close(sample.pred_score, row)
            assert sample.pred_label.tolist() == [int(row.argmax())]


def test_sobel_preprocessor():
    settings = dict(mean=[10.0, 20, 30], std=[2.0, 4, 8], bgr_to_rgb=True)
    prepare = SobelDataPreprocessor(**settings)
    images = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    mean, std = (
        torch.tensor(settings[k]).view(3, 1, 1) for k in ('mean', 'std')
    )
    want = sobel((images.flip(1) - mean) / std)
    found = prepare(dict(inputs=images, data_samples=[]))
    torch.testing.assert_close(found['inputs'], want)
    views = prepare(dict(inputs=[images, images[:1]], data_samples=[]))
    assert [len(view) for view in views['inputs']] == [2, 1]
    torch.testing.assert_close(views['inputs'][0], want)
