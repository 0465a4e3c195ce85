"""Rotation Feature Decoupling against its formulas, in float64."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import run_on_two
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mm_rotssl.models import DecouplingNeck, RotationFeatureDecoupling

ROTATIONS = (0, 90, 180, 270)
MODEL = dict(
    backbone=dict(
        type='mm_rotssl.NIN',
        num_stages=3,
        base_channels=6,
        out_indices=(0, 1, 2),
    ),
    neck=dict(type='mm_rotssl.DecouplingNeck', in_channels=6, out_channels=8),
    rotation_channels=4,
    head=dict(type='mm_rotssl.RotationHead'),
    instance_head=dict(
        type='mm_rotssl.InstanceDiscriminationHead',
        in_channels=4,
        memory=dict(feat_dim=5, length=12),
        num_negatives=6,
        loss=dict(z=2.2),
    ),
)


@pytest.fixture(autouse=True)
def hub():
    """The epoch is kept in a global place."""
    MessageHub._instance_dict.clear()
    yield MessageHub.get_current_instance()
    MessageHub._instance_dict.clear()


def build(**kwargs):
    torch.manual_seed(0)
    # from which the rows of the bank are drawn
    np.random.seed(0)
    model = RotationFeatureDecoupling(**{**copy.deepcopy(MODEL), **kwargs})
    model.init_weights()
    return model


def batch(indices=(3, 0, 11), size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(len(indices), 3, size, size, generator=generator)
    samples = []
    for index in indices:
        sample = DataSample()
        sample.set_field(index, 'sample_idx', field_type='metainfo')
        samples.append(sample)
    return images, samples


def vectors(model, images, rotations=ROTATIONS):
    """Of all copies, made with NumPy, image by image."""
    rows = [
        np.rot90(image, angle // 90, (1, 2)).copy()
        for image in images.numpy()
        for angle in rotations
    ]
    feats = model.backbone(torch.from_numpy(np.stack(rows)))[-1]
    return model.neck.layers(feats.mean((2, 3)))


def reference(model, f, indices, negatives, weights, detached=True, half=4):
    """The three terms in float64 from the vectors (N * R, C)."""
    f = f.double()
    n, r = len(indices), len(model.rotations)
    related, unrelated = f[:, :half], f[:, half:]
    fc = model.head.fc
    logits = related @ fc.weight.double().T + fc.bias.double()
    rotation = irrelevance = 0
    means = []
    for i in range(n):
        mean = sum(unrelated[i * r + y] for y in range(r)) / r
        means.append(mean)
        center = mean.detach() if detached else mean
        for y in range(r):
            row = logits[i * r + y]
            cross_entropy = row.exp().sum().log() - row[y]
            rotation = rotation + weights[i, y] * cross_entropy / (n * r)
            distance = (unrelated[i * r + y] - center).pow(2).sum()
            irrelevance = irrelevance + distance / (n * r * len(mean))
    fc = model.instance_head.fc
    bank = model.instance_head.memory.feature_bank.double()
    rows, k = len(bank), negatives.shape[1]
    c = k / rows
    instance = 0
    for i, index in enumerate(indices):
        v = fc.weight.double() @ means[i] + fc.bias.double()
        v = v / v.norm()
        p = ((bank @ v) / 0.07).exp() / (2.2 * rows)
        instance = instance - (p[index] / (p[index] + c + 1e-7)).log() / n
        for j in negatives[i].tolist():
            instance = instance - (c / (p[j] + c + 1e-7)).log() / n
    return rotation, irrelevance, instance


def noted_draws(monkeypatch):
    draws = []
    draw = torch.randint

    def note(*args, **kwargs):
        draws.append(draw(*args, **kwargs))
        return draws[-1]

    monkeypatch.setattr(torch, 'randint', note)
    return draws


def with_noise(probabilities, indices=(3, 0, 11), key='rotation_noise'):
    """A batch whose samples have their row of the probabilities."""
    images, samples = batch(indices)
    for index, sample in zip(indices, samples, strict=True):
        sample.set_field(probabilities[index], key)
    return images, samples


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('rotations', [ROTATIONS, (180, 0)])
def test_losses_and_gradients(weighted, rotations, monkeypatch, hub):
    indices = (3, 0, 11)
    images, samples = batch(indices)
    factors = dict(rotation=0.5, irrelevance=2.0, instance=0.25)
    kwargs = dict(rotations=rotations, loss_weights=factors)
    weights = np.ones((3, len(rotations)))
    if weighted:
        p = np.random.RandomState(0).rand(12, len(rotations))
        p = p.astype(np.float32)
        images, samples = with_noise(p, indices)
        kwargs.update(noise_start_epoch=2)
        hub.update_info('epoch', 2)
        for i, index in enumerate(indices):
            for y, angle in enumerate(rotations):
                weights[i, y] = 1 - p[index, y] ** 2 if angle else 1
    model, other = build(**kwargs), build(**kwargs)
    draws = noted_draws(monkeypatch)
    losses = model(images, samples, mode='loss')
    # a bank of the same rows, not yet updated
    f = vectors(other, images, rotations)
    terms = reference(other, f, indices, draws[-1], weights)
    names = ('rotation', 'irrelevance', 'instance')
    for name, term in zip(names, terms, strict=True):
        got = losses[f'loss_{name}'].item()
        assert got == pytest.approx(factors[name] * term.item(), rel=1e-5)
    total, _ = model.parse_losses(losses)
    total.backward()
    sum(
        factors[name] * term for name, term in zip(names, terms, strict=True)
    ).backward()
    for (name, a), b in zip(
        model.named_parameters(), other.parameters(), strict=True
    ):
        scale = b.grad.abs().max().item()
        torch.testing.assert_close(
            a.grad, b.grad, rtol=1e-3, atol=1e-5 * scale + 1e-7, msg=name
        )


def test_gradient_of_the_mean_does_not_matter():
    """A constant, as in the official code and ours, or not: the same."""
    model, other = build(), build()
    images, samples = batch()
    model.loss(images, samples)['loss_irrelevance'].backward()
    _, irrelevance, _ = reference(
        other,
        vectors(other, images),
        (3, 0, 11),
        torch.zeros(3, 1, dtype=torch.int64),
        np.ones((3, 4)),
        detached=False,
    )
    irrelevance.backward()
    for part in ('backbone', 'neck'):
        pairs = zip(
            getattr(model, part).parameters(),
            getattr(other, part).parameters(),
            strict=True,
        )
        for got, want in pairs:
            scale = want.grad.abs().max().item()
            torch.testing.assert_close(
                got.grad, want.grad, rtol=1e-3, atol=1e-5 * scale + 1e-7
            )
    assert scale > 1e-3


def test_the_mean_is_of_the_second_part_only(monkeypatch):
    model = build()
    seen = []
    monkeypatch.setattr(
        model.instance_head,
        'loss',
        lambda feats, indices: (
            seen.append((feats, indices)),
            dict(loss=feats.sum()),
        )[1],
    )
    images, samples = batch()
    model.loss(images, samples)
    ((mean, indices),) = seen
    assert indices.tolist() == [3, 0, 11]
    want = vectors(build(), images)[:, 4:].view(3, 4, 4).mean(1)
    torch.testing.assert_close(mean, want)
    # with its gradient: the second part learns from it
    assert mean.requires_grad


def test_first_epoch_with_weights(hub):
    """The official switch: 209 without, 210 with weights."""
    model = build(noise_start_epoch=210)
    images, samples = with_noise(np.full((12, 4), 0.9, np.float32))
    losses = {}
    for epoch in (0, 209, 210, 244):
        hub.update_info('epoch', epoch)
        hub.update_info('max_epochs', 245)
        logs = model.loss(images, samples)
        losses[epoch] = logs['loss_rotation'].item()
        labels = torch.arange(4).repeat(3)
        logits = model.head.fc(vectors(model, images)[:, :4])
        each = F.cross_entropy(logits, labels, reduction='none')
        weight = torch.tensor([1, 0.19, 0.19, 0.19]).repeat(3)
        want = (each * (weight if epoch >= 210 else 1)).sum() / 12
        assert losses[epoch] == pytest.approx(want.item(), rel=1e-5)
    assert losses[209] == losses[0] > losses[210] == losses[244]


def test_weights_that_would_never_be_used(hub):
    model = build(noise_start_epoch=8)
    inputs = with_noise(np.full((12, 4), 0.1, np.float32))
    hub.update_info('max_epochs', 8)
    with pytest.raises(ValueError, match=r'noise_start_epoch=8.*max_epochs=8'):
        model.loss(*inputs)
    # as without a file
    model.loss(*with_noise(np.zeros((12, 4), np.float32)))
    hub.update_info('max_epochs', 9)
    model.loss(*inputs)


def test_samples_without_probabilities():
    model = build(noise_start_epoch=0)
    with pytest.raises(ValueError, match=r'no rotation_noise.*LoadRotationN'):
        model.loss(*batch())
    with pytest.raises(ValueError, match=r'no sample_idx.*meta_keys'):
        model.loss(batch()[0], [DataSample() for _ in batch()[0]])


def test_exponent_of_the_weights(hub):
    p = np.random.RandomState(0).rand(12, 4).astype(np.float32)
    hub.update_info('epoch', 0)
    model = build(noise_start_epoch=0, noise_gamma=3)
    weight = model._weight(*reversed(with_noise(p)))
    want = 1 - p[[3, 0, 11]].astype(np.float64) ** 3
    want[:, 0] = 1
    np.testing.assert_allclose(weight.view(3, 4), want, atol=1e-6)


def test_accuracies():
    model = build()
    logs = model.loss(*batch())
    f = vectors(build(), batch()[0])
    labels = torch.arange(4).repeat(3)
    for name, part in (
        ('rotation_accuracy', f[:, :4]),
        ('unrelated_rotation_accuracy', f[:, 4:]),
    ):
        hits = model.head.fc(part).argmax(1) == labels
        assert logs[name].item() == pytest.approx(100 * hits.double().mean())
        assert not logs[name].requires_grad
    # parts of different lengths: the classifier fits the first only
    instance_head = dict(MODEL['instance_head'], in_channels=6)
    model = build(rotation_channels=2, instance_head=instance_head)
    logs = model.loss(*batch())
    assert 'rotation_accuracy' in logs
    assert 'unrelated_rotation_accuracy' not in logs
    model.eval()
    (sample, *_) = model.predict(*batch())
    assert 'unrelated_rotation_scores' not in sample


def test_predict():
    model = build().eval()
    images, samples = batch()
    with torch.no_grad():
        found = model(images, samples, mode='predict')
        f = vectors(model, images)
        feats = model.backbone(images)
    assert found[0] is samples[0]
    for i, sample in enumerate(found):
        for name, part in (
            ('rotation_scores', f[:, :4]),
            ('unrelated_rotation_scores', f[:, 4:]),
        ):
            want = model.head.fc(part).softmax(1)[4 * i : 4 * i + 4]
            torch.testing.assert_close(sample.get(name), want)
            field = name.replace('rotation_scores', 'feats')
            field = 'related_feats' if field == 'feats' else field
            torch.testing.assert_close(
                sample.get(field), part[4 * i : 4 * i + 4]
            )
        for got, stage in zip(sample.feats, feats, strict=True):
            torch.testing.assert_close(got, stage[i].mean((1, 2)))


def test_labels_never_reach_the_losses():
    losses = []
    for label in (0, 7, None):
        images, samples = batch()
        if label is not None:
            for sample in samples:
                sample.set_gt_label(label)
        model = build()
        torch.manual_seed(1)
        total, _ = model.parse_losses(model.loss(images, samples))
        losses.append(total)
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(dtype):
    model = build()
    images, samples = batch()
    with torch.autocast('cpu', dtype=dtype):
        losses = model.loss(images, samples)
    for name, value in losses.items():
        assert value.isfinite(), name
        assert value.dtype == torch.float32
    total, _ = model.parse_losses(losses)
    total.backward()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()


def test_neck():
    torch.manual_seed(0)
    neck = DecouplingNeck(3, 6)
    maps = torch.randn(5, 3, 2, 2)
    (out,) = neck((torch.zeros(1), maps))
    linear, norm, _ = neck.layers
    x = maps.double().mean((2, 3)) @ linear.weight.double().T
    x = (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt()
    np.testing.assert_allclose(
        out.detach(), x.clamp(min=0).detach(), atol=1e-5
    )
    torch.testing.assert_close(neck((maps.mean((2, 3)),))[0], out)
    assert linear.bias is None
    with pytest.raises(ValueError, match='out_channels=1'):
        DecouplingNeck(3, 1)


class Vector(nn.Module):
    """A backbone that ends with a vector, as AlexNet does."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Linear(3 * 64, channels)

    def forward(self, x):
        return (self.fc(x.flatten(1)).relu(),)


def test_vector_of_another_length():
    model = build(backbone=Vector(9), neck=None)
    with pytest.raises(ValueError, match=r'4 .*\+ 4 .*\(12, 9\)'):
        model.loss(*batch())
    model = build(backbone=Vector(8), neck=None)
    assert model.loss(*batch())['loss_rotation'].isfinite()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (
            dict(head=dict(type='mm_rotssl.RotationHead', in_channels=5)),
            r'in_channels=5 is not model\.rotation_channels=4',
        ),
        (dict(loss_weights=dict(mse=1)), 'has mse; the losses are rotation'),
        (dict(noise_gamma=0), 'noise_gamma=0'),
        (dict(noise_start_epoch=-1), 'noise_start_epoch=-1'),
        (
            dict(rotations=(90, 270), noise_start_epoch=0),
            r'\(90, 270\) holds no 0',
        ),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_images_without_index():
    images, samples = batch()
    for bad in (None, samples[:2], [DataSample() for _ in samples]):
        with pytest.raises(ValueError, match=r'no sample_idx.*meta_keys'):
            build().loss(images, bad)


def train(parts, wrap=lambda model: model):
    """Three steps on the parts of a batch that a process has."""
    torch.manual_seed(0)
    head = dict(MODEL['instance_head'], num_negatives=1, loss={})
    model = build(backbone=Vector(8), neck=None, instance_head=head)
    # negatives may differ between processes; here they must not
    model.instance_head._negatives = lambda v, _: v.new_zeros(len(v), 1)
    wrapped = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(3):
        images, samples = batch((step, 5, 7, 9), seed=step)
        losses = wrapped(images[parts], samples[parts], mode='loss')
        total, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return dict(model.state_dict())


def train_on_rank(rank):
    return train(
        slice(2 * rank, 2 * rank + 2),
        lambda model: DistributedDataParallel(model, broadcast_buffers=False),
    )


def test_two_processes_equal_one():
    """A network without batch normalization, so that the parts add up."""
    one, other = run_on_two(train_on_rank)
    whole = train(slice(None))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
        torch.testing.assert_close(value, whole[name], msg=name)
