"""Self-Classifier: neck, classifiers and algorithm against NumPy."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import run_on_two
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.models import (
    SelfClassifier,
    SelfClassifierHead,
    SelfClassifierNeck,
    UniformPriorCrossEntropy,
)


def array(tensor):
    return tensor.detach().double().numpy()


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


# The neck.


def perceptron(neck, x, norm):
    """Layer by layer, in training."""
    linear = [m for m in neck.modules() if isinstance(m, nn.Linear)]
    norms = [m for m in neck.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == (len(linear) - 1 if norm else 0)
    for i, layer in enumerate(linear):
        x = x @ array(layer.weight).T + array(layer.bias)
        if i < len(linear) - 1:
            if norm:
                variance = ((x - x.mean(0)) ** 2).mean(0)
                x = (x - x.mean(0)) / np.sqrt(variance + norms[i].eps)
                x = x * array(norms[i].weight) + array(norms[i].bias)
            x = np.where(x > 0, x, 0.01 * x)
    return x / np.sqrt((x**2).sum(1, keepdims=True))


@pytest.mark.parametrize('num_layers', [1, 2, 3])
@pytest.mark.parametrize('norm', [True, False])
def test_neck(num_layers, norm):
    torch.manual_seed(0)
    settings = {} if norm else dict(norm_cfg=None)
    neck = SelfClassifierNeck(7, 9, 4, num_layers, **settings)
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.normal_()
    feats = draw(12, 7) + 0.5
    before = feats.clone()
    found = neck(feats)
    want = perceptron(neck, array(feats), norm)
    np.testing.assert_allclose(array(found), want, rtol=1e-4, atol=1e-5)
    assert torch.equal(feats, before)
    shapes = [
        tuple(m.weight.shape)
        for m in neck.modules()
        if isinstance(m, nn.Linear)
    ]
    widths = [7, *[9] * (num_layers - 1), 4]
    assert shapes == list(zip(widths[1:], widths[:-1], strict=True))


def test_neck_is_drawn_as_the_authors_do():
    torch.manual_seed(0)
    neck = SelfClassifierNeck(200, 300, 100)
    neck.init_weights()
    linear = [m for m in neck.modules() if isinstance(m, nn.Linear)]
    assert [tuple(m.weight.shape) for m in linear] == [(300, 200), (100, 300)]
    for layer in linear:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert abs(layer.weight.mean().item()) < 5e-4
        # a normal distribution: 4.6 % beyond two deviations
        beyond = (layer.weight.abs() > 0.04).float().mean().item()
        assert beyond == pytest.approx(0.0455, abs=0.005)
        assert not layer.bias.any()
    defaults = SelfClassifierNeck(5)
    shapes = [tuple(p.shape) for p in defaults.parameters()]
    assert shapes == [(4096, 5), *[(4096,)] * 3, (128, 4096), (128,)]


def test_neck_takes_init_cfg():
    init_default_scope('mmpretrain')
    neck = SelfClassifierNeck(
        5, 6, 4, init_cfg=dict(type='Constant', layer='Linear', val=0.5)
    )
    neck.init_weights()
    assert (neck.mlp[0].weight == 0.5).all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_neck_in_half_precision(dtype):
    torch.manual_seed(0)
    neck = SelfClassifierNeck(7, 9, 4)
    feats = draw(12, 7)
    want = perceptron(neck, array(feats), True)
    with torch.autocast('cpu', dtype=dtype):
        found = neck(feats)
    assert found.dtype == torch.float32
    # more exactly than half precision has it
    lengths = np.sqrt((array(found) ** 2).sum(1))
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    np.testing.assert_allclose(array(found), want, atol=0.05)


def test_neck_of_nothing():
    """A vector of 0 has no direction, and its gradient is finite."""
    neck = SelfClassifierNeck(3, 4, 2, num_layers=1)
    feats = torch.zeros(2, 3, requires_grad=True)
    found = neck(feats)
    assert not found.any()
    found.sum().backward()
    assert feats.grad.isfinite().all()


@pytest.mark.parametrize('name', ['in', 'hid', 'out'])
def test_bad_neck(name):
    settings = {'in_channels': 3, f'{name}_channels': 0}
    with pytest.raises(
        ValueError, match=f'{name}_channels=0.* of SelfClassifierNeck must'
    ):
        SelfClassifierNeck(**settings)
    with pytest.raises(ValueError, match='num_layers=0 of SelfClassifierN'):
        SelfClassifierNeck(3, num_layers=0)


@pytest.mark.parametrize('shape', [(2, 6), (5,), (2, 5, 1)])
def test_neck_names_the_key(shape):
    with pytest.raises(
        ValueError, match=r'in_channels=5\).*Set model\.neck\.in_channels'
    ):
        SelfClassifierNeck(5)(torch.zeros(shape))


# The classifiers.

CLASSES = (7, 4, 11)


def build_head(num_classes=CLASSES, **settings):
    torch.manual_seed(0)
    head = SelfClassifierHead(5, num_classes, **settings)
    with torch.no_grad():
        for classifier in head.classifiers:
            classifier.parametrizations.weight.original1.normal_()
    return head


def originals(head):
    """Lengths and directions of each classifier."""
    return [
        (weight.original0, weight.original1)
        for weight in (c.parametrizations.weight for c in head.classifiers)
    ]


def weights(head):
    return [
        array(g) * array(v) / np.linalg.norm(array(v), axis=1, keepdims=True)
        for g, v in originals(head)
    ]


def test_scores():
    head = build_head()
    with torch.no_grad():
        for lengths, _ in originals(head):
            assert lengths.shape == (len(lengths), 1)
            assert (lengths == 1).all()
            lengths.uniform_(0.5, 2)
    feats = draw(3, 6, 5)
    found = head(feats)
    assert len(found) == len(CLASSES)
    for i, (scores, weight) in enumerate(
        zip(found, weights(head), strict=True)
    ):
        np.testing.assert_allclose(
            array(scores), array(feats) @ weight.T, rtol=1e-5, atol=1e-6
        )
        assert torch.equal(head.classify(feats, i), scores)
    assert torch.equal(head.classify(feats), found[0])
    # and nothing else is in there
    assert sum(p.numel() for p in head.parameters()) == sum(CLASSES) * 6


@pytest.mark.parametrize(
    ('settings', 'moves'), [({}, True), (dict(fixed=True), False)]
)
def test_what_is_learned(settings, moves):
    head = build_head(**settings)
    before = copy.deepcopy(head.state_dict())
    learned = [p for p in head.parameters() if p.requires_grad]
    # lengths and directions
    assert len(learned) == len(CLASSES) * 2 * moves
    feats = draw(3, 6, 5).requires_grad_()
    head.loss(feats)['loss'].backward()
    # in all cases there is something to learn before them
    assert feats.grad.abs().sum() > 0
    if learned:
        torch.optim.SGD(learned, 0.5).step()
    after = head.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value) != moves, name


def test_gradients_of_lengths_and_directions():
    head = build_head().double()
    head.classify = lambda x, i=0: head.classifiers[i](x)
    feats = draw(3, 6, 5).double()
    own = [
        [x.detach().clone().requires_grad_() for x in pair]
        for pair in originals(head)
    ]
    losses = []
    for g, v in own:
        weight = g * v / v.square().sum(1, keepdim=True).sqrt()
        losses.append(head.loss_module(feats @ weight.T))
    (sum(losses) / len(losses)).backward()
    head.loss(feats)['loss'].backward()
    for pair, copies in zip(originals(head), own, strict=True):
        for found, want in zip(pair, copies, strict=True):
            torch.testing.assert_close(found.grad, want.grad)


def usage(scores, row=0.1):
    """Classes that are in use, and the entropy of the mean, by loops."""
    used, mean = set(), np.zeros(scores.shape[1])
    for row_scores in scores:
        used.add(int(np.argmax(row_scores)))
        p = np.exp(row_scores / row - np.max(row_scores / row))
        mean += p / p.sum() / len(scores)
    entropy = -sum(p * math.log(p) for p in mean if p > 0)
    return len(used), entropy / math.log(len(mean))


@pytest.mark.parametrize('num_global', [1, 2, 3])
def test_loss_and_what_is_watched(num_global):
    head = build_head(loss=dict(num_global=num_global, row_temperature=0.3))
    feats = F.normalize(draw(4, 6, 5), dim=2)
    out = head.loss(feats)
    assert set(out) == {
        'loss',
        'chance_ratio',
        'classes_in_use',
        'marginal_entropy',
    }
    losses = [
        head.loss_module(
            torch.tensor(array(feats) @ weight.T, dtype=torch.float32)
        ).item()
        for weight in weights(head)
    ]
    want = sum(losses) / 3
    assert out['loss'].item() == pytest.approx(want, rel=1e-5)
    chance = sum(math.log(count) for count in CLASSES) / 3
    assert out['chance_ratio'].item() == pytest.approx(want / chance, rel=1e-5)
    scores = array(feats[num_global - 1]) @ weights(head)[0].T
    used, entropy = usage(scores, 0.3)
    assert out['classes_in_use'].item() == used
    assert out['marginal_entropy'].item() == pytest.approx(entropy, rel=1e-5)
    for name, value in out.items():
        assert value.requires_grad == (name == 'loss')
        assert value.dtype == torch.float32


def test_collapse_is_seen():
    head = build_head()
    feats = draw(1, 1, 5).expand(4, 6, 5)
    feats = F.normalize(feats, dim=2)
    out = head.loss(feats)
    assert out['chance_ratio'].item() == pytest.approx(1, abs=1e-4)
    assert out['classes_in_use'].item() == 1
    # classes alike: another collapse, with all of the entropy
    out = head.loss(torch.zeros(4, 6, 5))
    assert out['chance_ratio'].item() == pytest.approx(1, abs=1e-5)
    assert out['marginal_entropy'].item() == pytest.approx(1, abs=1e-5)


def test_loss_module_may_be_handed_in():
    loss = UniformPriorCrossEntropy(row_temperature=0.7)
    head = build_head(loss=loss)
    assert head.loss_module is loss
    p = array(head.predict(draw(4, 5)))
    scores = array(draw(4, 5)) @ weights(head)[0].T / 0.7
    want = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(p, want, rtol=1e-5)


def test_heads_can_be_copied_and_averaged():
    head = build_head()
    feats = draw(4, 5)
    twin = copy.deepcopy(head)
    assert torch.equal(twin.predict(feats), head.predict(feats))
    average = ExponentialMovingAverage(head, momentum=0.25)
    # the first call copies
    average.update_parameters(head)
    before = [[array(x) for x in pair] for pair in originals(head)]
    with torch.no_grad():
        for pair in originals(head):
            for tensor in pair:
                tensor.add_(torch.rand_like(tensor))
    average.update_parameters(head)
    g, v = (
        0.75 * old + 0.25 * array(new)
        for old, new in zip(before[0], originals(head)[0], strict=True)
    )
    weight = g * v / np.sqrt((v**2).sum(1, keepdims=True))
    scores = array(feats) @ weight.T / 0.1
    want = np.exp(scores - scores.max(1, keepdims=True))
    want /= want.sum(1, keepdims=True)
    found = array(average.module.predict(feats))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    # the copy has weights of its own
    assert not torch.equal(twin.predict(feats), head.predict(feats))


def test_old_checkpoints():
    """Of torch.nn.utils.weight_norm, as the official ones are."""
    state, want = {}, []
    feats = draw(4, 5)
    for i, count in enumerate(CLASSES):
        g, v = draw(count, 1, seed=i), draw(count, 5, seed=10 + i)
        state[f'classifiers.{i}.weight_g'] = g
        state[f'classifiers.{i}.weight_v'] = v
        directions = array(v) / np.linalg.norm(array(v), axis=1)[:, None]
        want.append(array(feats) @ (array(g) * directions).T)
    head = build_head()
    head.load_state_dict(state)
    for scores, row in zip(head(feats), want, strict=True):
        np.testing.assert_allclose(array(scores), row, rtol=1e-4, atol=1e-6)


def test_init_weights_changes_nothing():
    head = build_head()
    before = copy.deepcopy(head.state_dict())
    head.init_weights()
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_official_classifiers():
    head = SelfClassifierHead(6)
    counts = [v.shape for _, v in originals(head)]
    assert counts == [(1000, 6), (2000, 6), (4000, 6), (8000, 6)]
    loss = head.loss_module
    assert (loss.num_global, loss.row_temperature) == (2, 0.1)
    assert (loss.column_temperature, loss.eps) == (0.05, 1e-12)


def test_head_in_half_precision():
    head = build_head()
    feats = F.normalize(draw(4, 6, 5), dim=2)
    want, loss = head(feats), head.loss(feats)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found, again = head(feats), head.loss(feats)
        # embeddings of half precision: only they are rounded
        rounded = head(feats.bfloat16())
    for i, scores in enumerate(found):
        assert scores.dtype == torch.float32
        assert torch.equal(scores, want[i])
        assert torch.equal(rounded[i], head(feats.bfloat16().float())[i])
    for name, value in loss.items():
        assert torch.equal(value, again[name]), name


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(in_channels=0), 'in_channels=0 of SelfClassifierHead'),
        (dict(num_classes=()), r'num_classes=\(\) one or more'),
        (dict(num_classes=(5, 1)), r'num_classes=\(5, 1\) .*at least 2'),
    ],
)
def test_bad_head(settings, message):
    with pytest.raises(ValueError, match=message):
        SelfClassifierHead(**{'in_channels': 3, **settings})


# The algorithm.


class Backbone(nn.Module):
    """A convolution with batch normalization, which notes its inputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        x = self.conv(x)
        return x.flatten(2).mean(2), self.norm(x).relu()


def build(backbone=None, channels=6, **settings):
    torch.manual_seed(0)
    model = SelfClassifier(
        backbone=backbone or Backbone(),
        neck=dict(
            type='mm_rotssl.SelfClassifierNeck',
            in_channels=channels,
            hid_channels=8,
            out_channels=5,
        ),
        head=dict(
            type='mm_rotssl.SelfClassifierHead',
            in_channels=5,
            num_classes=CLASSES,
        ),
        **settings,
    )
    model.init_weights()
    return model


QUEUE = dict(type='mm_rotssl.NearestNeighborQueue', length=10, dim=5)


def views(sizes, count=4, seed=0):
    return [
        draw(count, 3, size, size, seed=100 * seed + i)
        for i, size in enumerate(sizes)
    ]


def samples(indices):
    result = []
    for index in indices:
        sample = DataSample()
        sample.set_field(index, 'sample_idx', field_type='metainfo')
        result.append(sample)
    return result


SIZES = (
    (9, 9),
    (9, 9, 6, 6, 6),
    # of a size, but not in a row
    (9, 6, 9, 9, 6),
)


@pytest.mark.parametrize('sizes', SIZES)
def test_views_are_kept_in_order(sizes):
    model = build().eval()
    inputs = views(sizes)
    embeds = model.embed(inputs)
    assert embeds.shape == (len(sizes), 4, 5)
    alone = []
    for view in inputs:
        maps = model.backbone(view)[-1]
        alone.append(model.neck(maps.mean((2, 3))))
    torch.testing.assert_close(embeds, torch.stack(alone))
    want = model.head.loss(torch.stack(alone))
    found = model(inputs, mode='loss')
    assert found.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(found[name], value)


def test_a_size_at_a_time():
    """What batch normalization has seen, in the backbone and the neck."""
    model = build()
    inputs = views((9, 9, 6, 6, 6))
    norm, hidden = model.backbone.norm, model.neck.mlp[1]
    conv, linear = model.backbone.conv, model.neck.mlp[0]
    model.loss(inputs)
    assert model.backbone.shapes == [(8, 3, 9, 9), (12, 3, 6, 6)]
    mean, variance, rows = np.zeros(6), np.ones(6), []
    for group in (inputs[:2], inputs[2:]):
        maps = array(conv(torch.cat(group)))
        flat = maps.transpose(1, 0, 2, 3).reshape(6, -1)
        mean = 0.9 * mean + 0.1 * flat.mean(1)
        variance = 0.9 * variance + 0.1 * flat.var(1, ddof=1)
        outputs = (flat - flat.mean(1)[:, None]) / np.sqrt(
            flat.var(1)[:, None] + norm.eps
        )
        outputs = np.maximum(outputs, 0).reshape(6, len(maps), -1)
        rows.append(outputs.mean(2).T)
    np.testing.assert_allclose(norm.running_mean, mean, atol=1e-6)
    np.testing.assert_allclose(norm.running_var, variance, rtol=1e-5)
    # the neck sees all rows at once
    rows = np.concatenate(rows) @ array(linear.weight).T
    np.testing.assert_allclose(
        hidden.running_mean, 0.1 * rows.mean(0), rtol=1e-3, atol=1e-7
    )
    np.testing.assert_allclose(
        hidden.running_var, 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5
    )
    assert norm.num_batches_tracked == 2
    assert hidden.num_batches_tracked == 1


def neighbors(rows, feats, indices):
    """Of another image, from a list of pairs."""
    found = []
    for feat, index in zip(feats, indices, strict=True):
        others = [row for i, row in rows if i != index]
        found.append(max(others, key=lambda row: float(row @ feat)))
    return np.stack(found)


def test_queue():
    model = build(queue=QUEUE)
    rows = []
    # images that come again; full in the third step
    batches = [(3, 0, 8, 1), (2, 3, 0, 8), (9, 7, 1, 3), (3, 0, 2, 5)] * 2
    for step, indices in enumerate(batches):
        inputs = views((9, 9, 6), seed=step)
        # the norms' moving statistics have no part in training
        embeds = model.embed(inputs).detach()
        full = len(rows) == 10
        first = array(embeds[0])
        if full:
            nearest = neighbors(rows, first, indices)
            with torch.no_grad():
                embeds[0] = torch.from_numpy(nearest)
            classes = [
                np.argmax(x @ weights(model.head)[0].T, 1)
                for x in (first, nearest)
            ]
        found = model.loss(inputs, samples(indices))
        want = model.head.loss(embeds)
        for name, value in want.items():
            torch.testing.assert_close(found[name], value)
        assert full == (step >= 3)
        assert (set(found) - set(want)) == (
            {'neighbor_agreement'} if full else set()
        )
        if full:
            assert found['neighbor_agreement'].item() == pytest.approx(
                100 * np.mean(classes[0] == classes[1])
            )
            assert not found['neighbor_agreement'].requires_grad
        # written only now, so that nobody is his own neighbor
        rows = (rows + list(zip(indices, first, strict=True)))[-10:]
        queue = model.queue
        held = zip(
            queue.indices.tolist(), queue.feats.double().numpy(), strict=True
        )
        held = [(i, row) for i, row in held if i >= 0]
        assert sorted(i for i, _ in held) == sorted(i for i, _ in rows)
        total = np.sum([row for _, row in rows], 0)
        np.testing.assert_allclose(
            np.sum([row for _, row in held], 0), total, atol=1e-5
        )


def gradients(model, inputs, indices):
    model.zero_grad()
    inputs = [view.clone().requires_grad_() for view in inputs]
    model.loss(inputs, samples(indices))['loss'].backward()
    return [view.grad for view in inputs]


def test_neighbors_pass_no_gradient_on():
    """In eval mode, where views do not meet in a normalization."""
    model = build(queue=QUEUE).eval()
    inputs, indices = views((9, 9, 6)), (3, 0, 8, 1)
    for start in (0, 4):
        assert all(
            grad.any()
            for grad in gradients(model, inputs, range(start, 4 + start))
        )
    gradients(model, inputs, (8, 9, 10, 11))
    assert model.queue.is_full
    rows = [
        (int(i), row)
        for i, row in zip(
            model.queue.indices,
            model.queue.feats.double().numpy(),
            strict=True,
        )
    ]
    first, *others = gradients(model, inputs, indices)
    assert first is None or not first.any()
    assert all(grad.any() for grad in others)
    found = [parameter.grad.clone() for parameter in model.head.parameters()]
    # the classifiers learn from the neighbors as from any embedding
    model.zero_grad()
    embeds = model.embed(inputs).detach()
    nearest = neighbors(rows, array(embeds[0]), indices)
    embeds[0] = torch.from_numpy(nearest)
    model.head.loss(embeds)['loss'].backward()
    for grad, parameter in zip(found, model.head.parameters(), strict=True):
        assert grad.any()
        torch.testing.assert_close(grad, parameter.grad)


def test_embeddings_in_the_queue_have_no_graph():
    model = build(queue=QUEUE)
    model.loss(views((9, 9)), samples(range(4)))
    assert not model.queue.feats.requires_grad


def test_predict():
    model = build(queue=QUEUE).eval()
    images = draw(5, 3, 9, 9)
    given = samples(range(5))
    found = model(images, given, mode='predict')
    assert all(a is b for a, b in zip(found, given, strict=True))
    vectors, maps = model.backbone(images)
    pooled = array(maps).mean((2, 3))
    embeds = model.neck(torch.tensor(pooled, dtype=torch.float32))
    scores = array(embeds) @ weights(model.head)[0].T / 0.1
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for i, sample in enumerate(found):
        np.testing.assert_allclose(
            array(sample.pred_score), p[i], rtol=1e-4, atol=1e-6
        )
        assert sample.pred_label.tolist() == [int(p[i].argmax())]
        assert len(sample.feats) == 2
        torch.testing.assert_close(sample.feats[0], vectors[i])
        np.testing.assert_allclose(
            array(sample.feats[1]), pooled[i], atol=1e-6
        )
    made = model.predict(images)
    assert len(made) == 5
    for one, other in zip(made, found, strict=True):
        torch.testing.assert_close(one.pred_score, other.pred_score)
    # features, without classes
    torch.testing.assert_close(model(images)[-1], maps)


VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(
        embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32
    ),
    img_size=16,
    patch_size=8,
)


@pytest.mark.parametrize(
    ('backbone', 'channels', 'sizes'),
    [
        (dict(type='mmpretrain.ResNet', depth=18), 512, (32, 32, 64)),
        (VIT, 16, (16, 16, 24)),
    ],
    ids=['ResNet', 'ViT'],
)
def test_other_backbones(backbone, channels, sizes):
    init_default_scope('mmpretrain')
    model = build(copy.deepcopy(backbone), channels)
    inputs = views(sizes)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(4):
        loss = model(inputs, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        assert all(
            p.grad is not None and p.grad.isfinite().all()
            for p in model.parameters()
        )
        optimizer.step()
        losses.append(loss.item())
    # one batch is learned
    assert losses[-1] < losses[0] - 0.01
    model.eval()
    feats = model.backbone(inputs[0])[-1]
    feats = feats.mean((2, 3)) if feats.dim() == 4 else feats
    found = torch.stack([s.pred_score for s in model.predict(inputs[0])])
    torch.testing.assert_close(found, model.head.predict(model.neck(feats)))


def test_half_precision():
    """A step with autocast is near one without."""
    losses, grads = [], []
    for enabled in (False, True):
        model = build(queue=QUEUE)
        for step in range(4):
            model.zero_grad()
            inputs = views((9, 9, 6), seed=step)
            with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
                out = model.loss(
                    inputs, samples(range(4 * step, 4 * step + 4))
                )
            out['loss'].backward()
        assert 'neighbor_agreement' in out
        assert out['loss'].dtype == torch.float32
        assert model.queue.feats.dtype == torch.float32
        losses.append(out['loss'].item())
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] != losses[1]
    # features are off by 1 %, and scores are taken over 0.05
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert grads[1].isfinite().all()
    assert F.cosine_similarity(*grads, dim=0) > 0.8


@pytest.mark.parametrize(
    'inputs', [torch.zeros(4, 3, 9, 9), [torch.zeros(4, 3, 9, 9)], []]
)
def test_one_view(inputs):
    with pytest.raises(
        ValueError, match=r"two or more views.*type='MultiView'.*train_datal"
    ):
        build().loss(inputs)


def test_images_without_an_index():
    model = build(queue=QUEUE)
    inputs = views((9, 9))
    for given in (
        None,
        [],
        [DataSample() for _ in range(4)],
        [*samples(range(3)), DataSample()],
        samples(range(3)),
    ):
        with pytest.raises(ValueError, match=r'no sample_idx.*PackInputs'):
            model.loss(inputs, given)
    assert (model.queue.indices == -1).all()
    # only the queue asks for it
    assert build().loss(inputs)['loss'].isfinite()


# Two processes.


def results_of(rank=None):
    """Of the head, and of an algorithm whose queue is full."""
    torch.manual_seed(rank or 0)
    part = slice(None) if rank is None else slice(3 * rank, 3 * rank + 3)
    head = build_head()
    feats = F.normalize(draw(3, 6, 5), dim=2)[:, part].requires_grad_()
    out = head.loss(feats)
    out['loss'].backward()
    model = build(queue=QUEUE).eval()
    for step in range(3):
        inputs = [view[part] for view in views((9, 9, 6), 6, seed=step)]
        indices = torch.tensor([0, 1, 2, 3, 4, 5]) + 4 * step
        model.zero_grad()
        losses = model.loss(inputs, samples(indices[part].tolist()))
        losses['loss'].backward()
    return dict(
        head={name: value.detach() for name, value in out.items()},
        feats=feats.grad,
        losses={name: value.detach() for name, value in losses.items()},
        grads=[p.grad.clone() for p in model.parameters()],
        queue=dict(model.queue.state_dict()),
    )


@pytest.fixture(scope='module')
def ranks():
    return run_on_two(results_of)


def test_two_processes_equal_one(ranks):
    want = results_of()
    assert 'neighbor_agreement' in want['losses']
    for key in ('head', 'losses'):
        for name in ('classes_in_use', 'marginal_entropy'):
            for found in ranks:
                torch.testing.assert_close(found[key][name], want[key][name])
        for name in set(want[key]) - {'classes_in_use', 'marginal_entropy'}:
            mean = (ranks[0][key][name] + ranks[1][key][name]) / 2
            torch.testing.assert_close(mean, want[key][name])
    feats = torch.cat([found['feats'] for found in ranks], 1) / 2
    torch.testing.assert_close(feats, want['feats'], rtol=1e-4, atol=1e-6)
    for one, other, grad in zip(
        *(found['grads'] for found in ranks), want['grads'], strict=True
    ):
        torch.testing.assert_close(
            (one + other) / 2, grad, rtol=1e-4, atol=1e-5
        )
    for name, value in want['queue'].items():
        for found in ranks:
            torch.testing.assert_close(found['queue'][name], value)
