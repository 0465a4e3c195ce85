"""Probes with a training recipe, against NumPy and their official recipes."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mm_rotssl.evaluation import classify, train_classifier
from mm_rotssl.evaluation.feature_store import EMBEDDING, FeatureStore
from mm_rotssl.evaluation.features import Features
from mm_rotssl.evaluation.protocols import (
    ConvProbe,
    MLPProbe,
    PooledLinear,
    trained_probe,
)
from mm_rotssl.evaluation.protocols.base import Protocol
from mm_rotssl.evaluation.subject import Subject
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
ALL = [PooledLinear, MLPProbe, ConvProbe]


@pytest.fixture(autouse=True, scope='module')
def scope():
    init_default_scope('mmpretrain')


# --- training ---------------------------------------------------------------


def zero_linear():
    layer = nn.utils.skip_init(nn.Linear, 4, 3)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def test_training_equals_numpy():
    """Softmax regression, Nesterov momentum, weight decay, and the rates."""
    rng = np.random.default_rng(0)
    # as small as those of an untrained network
    feats = 1e-4 * rng.normal(size=(23, 4))
    labels = rng.integers(3, size=23)
    told = []
    found = train_classifier(
        zero_linear,
        torch.from_numpy(feats).float(),
        torch.from_numpy(labels),
        epochs=5,
        batch_size=6,
        lr=0.3,
        weight_decay=0.1,
        milestones=[2, 4],
        seed=7,
        report=told.append,
    )
    assert told == [1, 2, 3, 4, 5]
    assert not found.training
    torch.manual_seed(7)
    scaled = feats / np.sqrt(np.mean(feats**2))
    x = np.hstack([scaled, np.ones((23, 1))])
    w, speed = np.zeros((5, 3)), np.zeros((5, 3))
    for epoch in range(5):
        rate = 0.3 * 0.2 ** (epoch // 2)
        order = torch.randperm(23).numpy()
        # of 6, 6, 6 and 5
        for batch in np.array_split(order, 4):
            p = np.exp(x[batch] @ w)
            p /= p.sum(1, keepdims=True)
            gradient = x[batch].T @ (p - np.eye(3)[labels[batch]])
            gradient = gradient / len(batch) + 0.1 * w
            speed = 0.9 * speed + gradient
            w = w - rate * (gradient + 0.9 * speed)
    linear = found[1]
    np.testing.assert_allclose(linear.weight.detach().T, w[:4], rtol=1e-4)
    np.testing.assert_allclose(linear.bias.detach(), w[4], rtol=1e-4)
    many = torch.from_numpy(np.tile(feats, (60, 1))).float()
    predicted = classify(found, many)
    assert predicted.tolist() == [*(x @ w).argmax(1)] * 60


def test_random_numbers_are_the_seeds_alone():
    feats, labels = torch.randn(9, 4), torch.arange(9) % 3
    build = [lambda: nn.Linear(4, 3)] * 3

    def weights(number, seed):
        return train_classifier(
            build[number], feats, labels, 2, 4, 0.1, 0.0, seed=seed
        )[1].weight

    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = weights(0, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(weights(1, 5), one)
    assert not torch.equal(weights(2, 6), one)


def test_features_of_a_dead_stage():
    labels = torch.tensor([1, 1, 1, 0])
    rows = torch.zeros(4, 4)
    found = train_classifier(zero_linear, rows, labels, 9, 4, 1.0, 0.0)
    assert classify(found, rows).tolist() == [1] * 4


@pytest.mark.parametrize('kind', ALL)
def test_features_that_are_not_finite(kind):
    rows = {'1': torch.full((4, 8), torch.nan)}
    labels = torch.tensor([0, 1, 0, 1])
    subject, _ = stand_in(rows, labels, rows, labels, rows)
    with pytest.raises(InputError, match=f'{kind.name}: features of stage 1'):
        next(kind(epochs=1).run(subject))


@pytest.mark.parametrize(('epochs', 'size'), [(0, 8), (3, 1)])
def test_bad_training(epochs, size):
    with pytest.raises(InputError, match=f'epochs={epochs} and batch_size='):
        train_classifier(
            zero_linear, torch.ones(4, 4), torch.ones(4), epochs, size, 1, 0
        )


# --- classifiers ------------------------------------------------------------


def test_normalization_of_pooled_maps():
    torch.manual_seed(0)
    probe = PooledLinear().build(3, 4, 300)
    assert {name for name, _ in probe.named_parameters()} == {
        '3.weight',
        '3.bias',
    }
    assert probe[3].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not probe[3].bias.any()
    rows = 5 + 3 * torch.randn(20, 48)
    found = probe(rows)
    maps = rows.double().numpy().reshape(20, 3, 4, 4)
    # a channel over images and places
    mean, var = (
        getattr(maps, kind)((0, 2, 3), keepdims=True)
        for kind in ('mean', 'var')
    )
    scaled = ((maps - mean) / np.sqrt(var + 1e-5)).reshape(20, 48)
    want = scaled @ probe[3].weight.detach().double().numpy().T
    np.testing.assert_allclose(found.detach(), want, atol=1e-5)


CONFIG_OF = {
    MLPProbe: 'nin-stage2-nonlinear_1xb128-steplr-100e_cifar10.py',
    ConvProbe: 'nin-stage2-conv_1xb128-steplr-100e_cifar10.py',
}


@pytest.mark.parametrize('kind', CONFIG_OF)
def test_recipe_of_the_config(kind):
    """The same layers and rates; first weights of the official code."""
    cfg = Config.fromfile(CONFIGS / 'rotnet/probes' / CONFIG_OF[kind])
    probe = kind()
    optimizer = cfg.optim_wrapper.optimizer
    assert (probe.lr, probe.weight_decay) == (
        optimizer.lr,
        optimizer.weight_decay,
    )
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)
    assert probe.batch_size == cfg.train_dataloader.batch_size
    assert probe.epochs == kind.length == cfg.train_cfg.max_epochs
    assert list(kind.lr_steps) == cfg.param_scheduler.milestones
    assert cfg.param_scheduler.gamma == 0.2
    found = probe.build(192, 8, 10)
    for part in ('neck', 'head'):
        want, have = (
            {name: value.shape for name, value in module.state_dict().items()}
            for module in (MODELS.build(cfg.model[part]), getattr(found, part))
        )
        assert want == have
    linear = found.head.layers[0].fc if kind is MLPProbe else found.head.fc
    outputs = linear.out_features
    assert linear.weight.std().item() == pytest.approx(
        (2 / outputs) ** 0.5, rel=0.05
    )
    maps = torch.randn(2, 192, 8, 8)
    found.eval()
    want = found.head(found.neck((maps,)))
    assert torch.equal(found(maps.flatten(1)), want)
    assert want.shape == (2, 10)


def test_width_of_the_hidden_layers():
    def widths(probe, classes):
        layers = probe.build(2, 3, classes).head.layers
        return [layer.fc.out_features for layer in layers]

    assert widths(MLPProbe(), 10) == [200, 200, 10]
    assert widths(MLPProbe(), 300) == [2048, 2048, 300]
    assert widths(MLPProbe(hidden=7), 10) == [7, 7, 10]


# --- protocols --------------------------------------------------------------


def stand_in(reference, labels, test, test_labels, means, seed=0):
    """A subject with rows of pooled maps."""
    told = []

    def extract(model, images, **settings):
        assert model is subject.model
        assert settings['pool'].values in (9000, 25_000)
        stages = reference if images == 'reference' else test
        return SimpleNamespace(stages=stages)

    features = Features(
        list(means), [], list(means.values()), labels, [], test_labels
    )
    subject = SimpleNamespace(
        model=nn.Linear(1, 1),
        store=SimpleNamespace(extract=extract),
        reference='reference',
        test='test',
        features=features,
        seed=seed,
        report=told.append,
    )
    return subject, told


def xor(count):
    """Classes that no line divides, beside noise."""
    rows = torch.randn(count, 4)
    return rows, ((rows[:, 0] > 0) ^ (rows[:, 1] > 0)).long()


def test_what_a_line_can_not_divide():
    torch.manual_seed(0)
    (rows, labels), (asked, answers) = xor(600), xor(200)
    stages = {'1': rows}, {'1': asked}
    found = {}
    for probe in (
        PooledLinear(epochs=8, batch_size=50),
        MLPProbe(epochs=8, batch_size=50),
    ):
        subject, told = stand_in(
            stages[0], labels, stages[1], answers, {'1': rows[:, :1]}
        )
        (found[probe.name],) = probe.run(subject)
        assert told == [
            f'{probe.name}, stage 1: epoch {n} of 8' for n in range(1, 9)
        ]
    assert found['pooled-linear'].values[0] < 65
    assert found['mlp'].values[0] > 90


@pytest.mark.parametrize(
    ('kind', 'epochs', 'milestones'),
    [
        (PooledLinear, 35, [5, 15, 25]),
        (PooledLinear, 7, [1, 3, 5]),
        (PooledLinear, 2, [1, 1, 1]),
        (MLPProbe, 10, [2, 4, 4]),
        (ConvProbe, 200, [70, 140, 170]),
    ],
)
def test_rates_follow_the_length(kind, epochs, milestones, monkeypatch):
    asked = {}

    def spy(build, *settings, **more):
        asked[len(asked)] = settings[2:], more, build()
        return nn.Linear(8, 2)

    monkeypatch.setattr(trained_probe, 'train_classifier', spy)
    rows = {'1': torch.rand(4, 8), EMBEDDING: torch.rand(4, 8)}
    labels = torch.tensor([0, 1, 0, 1])
    means = {'1': torch.rand(4, 2), EMBEDDING: torch.rand(4, 8)}
    subject, _ = stand_in(rows, labels, rows, labels, means, seed=4)
    probe = kind(epochs=epochs, batch_size=3, lr=0.5, weight_decay=0.25)
    stages = [one.stage for one in probe.run(subject)]
    # an embedding is no map
    assert stages == ['1', EMBEDDING][: 1 + (kind is not ConvProbe)]
    settings, more, network = asked[0]
    assert settings == (epochs, 3, 0.5, 0.25, milestones)
    assert (more['seed'], more['device'].type) == (4, 'cpu')
    # of 2 channels and 2 x 2 cells
    assert network(torch.rand(3, 8)).shape == (3, 2)


@pytest.fixture(scope='module')
def subject():
    cfg = Config.fromfile(CONFIGS / '_base_/datasets/digits.py')
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mm_rotssl.RotNet',
            backbone=dict(
                type='mm_rotssl.NIN',
                base_channels=12,
                num_stages=3,
                out_indices=(0, 2),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=12),
            data_preprocessor=cfg.data_preprocessor,
        )
    ).eval()
    loaders = []
    for key, indices in (('reference_dataloader', 60), ('val_dataloader', 40)):
        dataset = dict(size=16, indices=indices, serialize_data=False)
        cfg.merge_from_dict({key: dict(batch_size=25, dataset=dataset)})
        loaders.append(Runner.build_dataloader(cfg[key]))
    reference, test = loaders
    return Subject(
        model,
        FeatureStore(),
        test,
        reference,
        test,
        # classes counted from the other end
        test_to_reference=torch.arange(9, -1, -1),
        seed=3,
    )


@pytest.mark.parametrize('kind', ALL)
def test_a_network(kind, subject):
    """Beside its maps, pooled here."""
    probe = kind(epochs=3, batch_size=20, values=300)
    found = list(probe.run(subject))
    assert [one.stage for one in found] == ['1', '3']

    def stages_and_labels(loader):
        images = torch.stack([item['inputs'] for item in loader.dataset])
        labels = [
            int(item['data_samples'].gt_label) for item in loader.dataset
        ]
        with torch.no_grad():
            maps = subject.model.backbone((images.float() - 78) / 87)
        # 6 and 12 channels of 8 and 4 pixels
        first = F.adaptive_avg_pool2d(maps[0], 7)
        return [first, maps[1]], torch.tensor(labels)

    reference, labels = stages_and_labels(subject.reference)
    asked, answers = stages_and_labels(subject.test)
    answers = 9 - answers
    for one, maps, queries in zip(found, reference, asked, strict=True):
        _, channels, side, _ = maps.shape
        classifier = train_classifier(
            lambda c=channels, s=side: probe.build(c, s, 10),
            maps.flatten(1),
            labels,
            3,
            20,
            probe.lr,
            5e-4,
            [max(1, round(3 * step / kind.length)) for step in kind.lr_steps],
            seed=3,
        )
        with torch.no_grad():
            right = classifier(queries.flatten(1)).argmax(1) == answers
        assert one.metric in probe.metrics
        assert one.correct.dtype == np.float32
        assert one.correct.tolist() == right.float().tolist()
        assert list(one.values) == [100 * right.double().mean().item()]
        assert one.chance == 10


@pytest.mark.parametrize('kind', ALL)
def test_what_reports_show(kind):
    assert issubclass(kind, Protocol)
    assert kind.labeled
    assert not kind.quick
    assert [field.name for field in dataclasses.fields(kind)][:5] == [
        'epochs',
        'batch_size',
        'lr',
        'weight_decay',
        'values',
    ]
    names = [other.name for other in ALL]
    assert len({*names}) == 3
    assert kind.about.endswith('.')
