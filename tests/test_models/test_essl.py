"""Rotation prediction beside each of mmpretrain's algorithms and ours."""

import copy
import itertools
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gloo import run_on_two
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.engine.hooks import DenseCLHook, SwAVHook
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn import functional as F

from mm_rotssl.models import ESSL
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import algorithm_settings

COUNTER = itertools.count()
BACKBONE = dict(type='mm_rotssl.NIN', num_stages=3, base_channels=6)
BN = dict(type='BN1d')
NECK = dict(
    type='NonLinearNeck',
    in_channels=6,
    hid_channels=8,
    out_channels=4,
    num_layers=2,
    with_avg_pool=True,
    norm_cfg=BN,
)
PREDICTOR = dict(NECK, in_channels=4, with_avg_pool=False)
CONTRASTIVE = dict(
    type='ContrastiveHead',
    loss=dict(type='CrossEntropyLoss'),
    temperature=0.2,
)
COSINE = dict(
    type='LatentPredictHead',
    loss=dict(type='CosineSimilarityLoss'),
    predictor=PREDICTOR,
)
HOSTS = dict(
    moco=dict(
        type='MoCo',
        queue_len=8,
        feat_dim=4,
        momentum=0.1,
        neck=dict(
            type='MoCoV2Neck',
            in_channels=6,
            hid_channels=8,
            out_channels=4,
            with_avg_pool=True,
        ),
        head=CONTRASTIVE,
    ),
    simclr=dict(type='SimCLR', neck=NECK, head=CONTRASTIVE),
    byol=dict(type='BYOL', neck=NECK, head=COSINE, base_momentum=0.1),
    swav=dict(
        type='SwAV',
        neck=dict(
            type='SwAVNeck',
            in_channels=6,
            hid_channels=8,
            out_channels=4,
            norm_cfg=BN,
            with_avg_pool=True,
        ),
        head=dict(
            type='SwAVHead',
            loss=dict(
                type='SwAVLoss', feat_dim=4, num_crops=[2], num_prototypes=5
            ),
        ),
    ),
    simsiam=dict(type='SimSiam', neck=NECK, head=COSINE),
    barlowtwins=dict(
        type='BarlowTwins',
        neck=NECK,
        head=dict(
            type='LatentCrossCorrelationHead',
            in_channels=4,
            loss=dict(type='CrossCorrelationLoss'),
        ),
    ),
    self_classifier=dict(
        type='mm_rotssl.SelfClassifier',
        neck=dict(
            type='mm_rotssl.SelfClassifierNeck',
            in_channels=6,
            hid_channels=8,
            out_channels=4,
        ),
        head=dict(
            type='mm_rotssl.SelfClassifierHead',
            in_channels=4,
            num_classes=(3,),
        ),
    ),
)
HOSTS['npid'] = dict(
    type='mm_rotssl.NPID',
    head=dict(in_channels=6, memory=dict(feat_dim=4, length=20)),
)
HOSTS['densecl'] = dict(
    HOSTS['moco'],
    type='DenseCL',
    neck=dict(
        type='DenseCLNeck', in_channels=6, hid_channels=8, out_channels=4
    ),
)
# with one view of an image
SINGLE = ('npid',)
HEAD = dict(type='mm_rotssl.RotationHead', in_channels=6, hid_channels=10)
POOLING = dict(type='mmpretrain.GlobalAveragePooling')


def build(settings):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(copy.deepcopy(settings))


@pytest.fixture(autouse=True)
def _end_of_training():
    """Which the runner announces, and BYOL's momentum is scheduled by."""
    MessageHub.get_current_instance().update_info('max_iters', 10)
    yield
    MessageHub.get_current_instance().pop_info('max_iters')


def host_settings(name, backbone=BACKBONE):
    return dict(HOSTS[name], backbone=backbone)


def pair(name, weight=0.4, **settings):
    """The plain algorithm, and the same one with rotation."""
    torch.manual_seed(3)
    plain = build(host_settings(name))
    plain.init_weights()
    wrapped = build(
        dict(
            type='mm_rotssl.ESSL',
            algorithm=host_settings(name),
            neck=POOLING,
            head=HEAD,
            weight=weight,
            **settings,
        )
    )
    missing = wrapped.load_state_dict(plain.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert all(k.startswith('tasks.rotation.') for k in missing.missing_keys)
    return plain, wrapped


def place(name):
    """Where a tensor of the algorithm is in the mixture."""
    return name if name.startswith('backbone.') else f'tasks.algorithm.{name}'


def views(size=16, count=4, crop=12):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(count, 3, side, side, generator=generator)
        for side in (size, size, crop)
    ]


def samples(count=4):
    return [DataSample(metainfo=dict(sample_idx=i)) for i in range(count)]


def views_of(name):
    """Of an algorithm, and the crop to be rotated."""
    return views()[1:] if name in SINGLE else views()


def alone(name, inputs):
    """As the algorithm takes its views without rotation."""
    return inputs[0] if name in SINGLE else inputs


def loss_rotation(backbone, head, crop):
    """From the formula: all four copies, a hidden layer, cross entropy."""
    copies = torch.stack(
        [torch.rot90(crop, k, (2, 3)) for k in range(4)], 1
    ).flatten(0, 1)
    feats = backbone(copies)[-1].mean((2, 3))
    linear, norm = head.hidden[0], head.hidden[1]
    x = feats @ linear.weight.T + linear.bias
    x = (x - x.mean(1, keepdim=True)) / (
        x.var(1, unbiased=False, keepdim=True) + norm.eps
    ).sqrt()
    x = (x * norm.weight + norm.bias).clamp(min=0)
    logits = x @ head.fc.weight.T + head.fc.bias
    labels = torch.arange(4).repeat(len(crop))
    losses = logits.logsumexp(1) - logits[torch.arange(len(labels)), labels]
    accuracy = (logits.argmax(1) == labels).double().mean() * 100
    return losses.mean(), accuracy


def parameters(model):
    return {
        name: value
        for name, value in model.named_parameters()
        if value.requires_grad and not name.startswith('tasks.rotation.')
    }


@pytest.mark.parametrize('name', HOSTS)
def test_losses_add_up(name):
    plain, wrapped = pair(name)
    *inputs, crop = views_of(name)
    state = copy.deepcopy(plain.state_dict())
    torch.manual_seed(5)
    expected_losses = plain.loss(alone(name, inputs), samples())
    expected = sum(v for k, v in expected_losses.items() if 'loss' in k)
    host = torch.autograd.grad(
        expected, list(parameters(plain).values()), allow_unused=True
    )
    # the network as it was
    plain.load_state_dict(state)
    expected_rotation, accuracy = loss_rotation(
        plain.backbone, wrapped.tasks['rotation'].head, crop
    )
    names = [n for n in parameters(plain) if n.startswith('backbone.')]
    rotation = torch.autograd.grad(
        expected_rotation, [parameters(plain)[n] for n in names]
    )

    torch.manual_seed(5)
    losses = wrapped.loss([*inputs, crop], samples())
    for key, value in expected_losses.items():
        key = key.replace('loss', 'loss_algorithm', 1)
        if 'loss' not in key:
            key = f'algorithm_{key}'
        assert torch.equal(losses[key], value)
    torch.testing.assert_close(
        losses['loss_rotation'], 0.4 * expected_rotation
    )
    assert losses['rotation_accuracy'] == pytest.approx(float(accuracy))
    total, logs = wrapped.parse_losses(losses)
    torch.testing.assert_close(total, expected + 0.4 * expected_rotation)
    assert logs['loss'] == total

    total.backward()
    by_hand = {
        place(n): torch.zeros_like(p) if g is None else g.clone()
        for (n, p), g in zip(parameters(plain).items(), host, strict=True)
    }
    for n, gradient in zip(names, rotation, strict=True):
        by_hand[n] += 0.4 * gradient
    for n, parameter in parameters(wrapped).items():
        found = parameter.grad
        found = torch.zeros_like(parameter) if found is None else found
        torch.testing.assert_close(found, by_hand[n], rtol=1e-4, atol=1e-5)
    assert wrapped.tasks['rotation'].head.fc.weight.grad.abs().sum() > 0


def step(model, inputs):
    settings = dict(
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01)
    )
    wrapper = build_optim_wrapper(model, settings)
    torch.manual_seed(6)
    for _ in range(2):
        copied = (
            [v.clone() for v in inputs]
            if isinstance(inputs, list)
            else inputs.clone()
        )
        data = dict(inputs=copied, data_samples=samples())
        model.train().train_step(data, wrapper)
    return model.state_dict()


@pytest.mark.parametrize('name', HOSTS)
def test_weight_zero_is_the_plain_algorithm(name):
    """Bit for bit, running statistics, momentum networks and queues too."""
    plain, wrapped = pair(name, weight=0)
    inputs = views_of(name)
    before = copy.deepcopy(plain.state_dict())
    expected = step(plain, alone(name, inputs[:-1]))
    found = step(wrapped, inputs)
    for key, value in expected.items():
        assert torch.equal(found[place(key)], value), key
    assert any(not torch.equal(before[k], v) for k, v in expected.items())
    # which it is not with another weight
    other = step(pair(name, weight=0.1)[1], inputs)
    changed = [
        k for k, v in expected.items() if not torch.equal(other[place(k)], v)
    ]
    assert any(k.startswith('backbone.') for k in changed)


def test_weight_zero_leaves_a_gradient_for_each_parameter():
    """Without which a distributed run would wait."""
    _, wrapped = pair('simclr', weight=0)
    total, logs = wrapped.parse_losses(wrapped.loss(views(), []))
    total.backward()
    assert logs['loss_rotation'] == 0
    for parameter in wrapped.tasks['rotation'].head.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


@pytest.mark.parametrize('name', HOSTS)
def test_names_and_copies(name):
    plain, wrapped = pair(name)
    rotation = {
        f'head.{part}'
        for part in (
            *('hidden.0.weight', 'hidden.0.bias', 'hidden.1.weight'),
            *('hidden.1.bias', 'fc.weight', 'fc.bias'),
        )
    }
    assert set(wrapped.state_dict()) == {
        *map(place, plain.state_dict()),
        *(f'tasks.rotation.{key}' for key in rotation),
    }
    # checkpoints from before 0.1.0 named the algorithm's parts at the top
    old = {
        **plain.state_dict(),
        **{
            f'rotation_{key}': torch.full_like(
                wrapped.state_dict()[f'tasks.rotation.{key}'], 0.5
            )
            for key in rotation
        },
    }
    other = pair(name)[1]
    for load in (other.load_state_dict, lambda x: load_state_dict(other, x)):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.fill_(7)
        load(old)
        found = other.state_dict()
        for key, value in plain.state_dict().items():
            assert torch.equal(found[place(key)], value), key
        for key in rotation:
            assert (found[f'tasks.rotation.{key}'] == 0.5).all(), key
    assert 'rotation_head.fc.bias' in old
    again = copy.deepcopy(wrapped)
    assert type(again) is type(wrapped)
    with torch.no_grad():
        next(again.backbone.parameters()).normal_()
    inputs = views_of(name)
    torch.manual_seed(1)
    found = wrapped.loss(inputs, samples())
    torch.manual_seed(1)
    other = again.loss(inputs, samples())
    key = 'loss_algorithm_dense' if name == 'densecl' else 'loss_algorithm'
    assert other[key] != found[key]


@pytest.mark.parametrize('name', ['byol', 'densecl', 'swav'])
def test_is_pickled(name):
    _, wrapped = pair(name)
    pickled = pickle.loads(pickle.dumps(wrapped))
    assert type(pickled) is type(wrapped)
    assert pickled.weights['rotation'] == 0.4
    for key, value in wrapped.state_dict().items():
        assert torch.equal(pickled.state_dict()[key], value)


def test_momentum_network_follows_the_backbone():
    """The new one of each step, which the rotations have changed too."""
    _, wrapped = pair('byol', weight=2.0)
    inputs = views()
    settings = dict(optimizer=dict(type='SGD', lr=0.1))
    wrapper = build_optim_wrapper(wrapped, settings)
    online = next(wrapped.backbone.parameters())
    target = next(wrapped.target_net.module.parameters())
    expected = online.detach().double().clone()
    for number in range(3):
        current = online.detach().double().clone()
        if number:
            before = target.double().clone()
        data = dict(inputs=inputs, data_samples=[])
        wrapped.train_step(data, wrapper)
        if number:
            # between what it was and the network at the start of the step
            share = (target.double() - before) / (current - before)
            finite = share[(current - before).abs() > 1e-4]
            assert finite.std() < 1e-2
            assert 0 < finite.mean() < 1
        else:
            torch.testing.assert_close(target.double(), expected)
        assert not torch.equal(online.double(), current)


def test_hooks_find_what_they_look_for(tmp_path):
    """SwAV's queue goes to head.loss_module."""
    _, wrapped = pair('swav')

    class Fake:
        work_dir = str(tmp_path)
        model = wrapped
        epoch = world_size = 1

    hook = SwAVHook(
        batch_size=4, epoch_queue_starts=1, feat_dim=4, queue_length=8
    )
    hook.before_run(Fake)
    hook.before_train_epoch(Fake)
    inputs = views()
    wrapped.loss(inputs, [])
    queue = wrapped.head.loss_module.queue
    assert queue.shape == (2, 8, 4)
    assert queue[:, :4].abs().sum() > 0
    assert queue[:, 4:].abs().sum() == 0


def test_settings_are_changed_where_they_are():
    """DenseCL's hook sets the weight of its dense loss."""
    _, wrapped = pair('densecl')
    hook = DenseCLHook(start_iters=2)
    fake = SimpleNamespace(model=wrapped, iter=0)
    hook.before_train(fake)
    dense = {}
    for fake.iter in (0, 2):
        hook.before_train_iter(fake, 0)
        losses = wrapped.loss(views(), [])
        dense[fake.iter] = float(losses['loss_algorithm_dense'].detach())
    assert dense[0] == 0 < dense[2]
    with pytest.raises(AttributeError, match='no_such_setting'):
        _ = wrapped.no_such_setting


@pytest.mark.parametrize('name', ['simclr', 'self_classifier'])
def test_predict(name):
    _, wrapped = pair(name, rotations=(0, 180))
    wrapped.eval()
    images = views()[0]
    samples = wrapped(images, [DataSample() for _ in images], mode='predict')
    for image, sample in zip(images, samples, strict=True):
        feats = wrapped.backbone(image[None])
        torch.testing.assert_close(sample.feats[-1], feats[-1].mean((2, 3))[0])
        for k, scores in enumerate(sample.rotation_scores):
            rotated = torch.rot90(image, 2 * k, (1, 2))[None]
            pooled = wrapped.backbone(rotated)[-1].mean((2, 3))
            hidden = wrapped.tasks['rotation'].head.hidden(pooled)
            logits = wrapped.tasks['rotation'].head.fc(hidden)
            torch.testing.assert_close(scores, logits.softmax(1)[0])
        assert ('pred_label' in sample) == (name == 'self_classifier')
    assert wrapped.tasks['rotation'].head.num_rotations == 2
    # without samples, and as a feature extractor
    assert len(wrapped.predict(images)) == len(images)
    assert torch.equal(wrapped(images)[-1], wrapped.backbone(images)[-1])


def test_algorithm_of_a_single_view():
    """Exemplar-CNN wants a tensor, not a list of one."""
    exemplar = dict(
        type='mm_rotssl.ExemplarCNN',
        backbone=BACKBONE,
        neck=POOLING,
        head=dict(
            type='mm_rotssl.ExemplarHead', in_channels=6, num_exemplars=5
        ),
    )
    torch.manual_seed(0)
    wrapped = build(
        dict(
            type='mm_rotssl.ESSL', algorithm=exemplar, neck=POOLING, head=HEAD
        )
    )
    first, _, crop = views()
    samples = [DataSample() for _ in first]
    for i, sample in enumerate(samples):
        sample.set_field(i, 'exemplar_label')
    plain = build(exemplar)
    wrapped.load_state_dict(plain.state_dict(), strict=False)
    losses = wrapped.loss([first, crop], samples)
    expected = plain.loss(first, samples)['loss']
    assert torch.equal(losses['loss_algorithm'], expected)


def test_takes_a_module_and_the_preprocessor_of_the_config():
    algorithm = build(host_settings('simsiam'))
    head = build(HEAD)
    wrapped = ESSL(algorithm, head, build(POOLING))
    assert wrapped.backbone is algorithm.backbone
    assert wrapped.tasks['rotation'].head is head
    shared = dict(mean=[1.0] * 3, std=[2.0] * 3)
    own = dict(shared, mean=[5.0] * 3)
    for settings, mean in (
        (host_settings('simsiam'), 1),
        (dict(host_settings('simsiam'), data_preprocessor=own), 5),
    ):
        cfg = Config(
            dict(
                model=dict(
                    type='mm_rotssl.ESSL',
                    algorithm=settings,
                    neck=POOLING,
                    head=HEAD,
                ),
                data_preprocessor=shared,
            )
        )
        found = algorithm_settings(cfg)
        assert found['data_preprocessor']['mean'][0] == mean
        assert found['backbone'] == BACKBONE
        model = build(dict(cfg.model, data_preprocessor=shared))
        assert float(model.data_preprocessor.mean.flatten()[0]) == mean
    assert algorithm_settings(Config({})) == {}


@pytest.mark.parametrize(
    ('inputs', 'settings', 'message'),
    [
        (views()[0], {}, 'one crop more'),
        (views()[:1], {}, 'one crop more'),
        (None, dict(weight=-0.1), r'weight -0\.1 of model\.tasks\.rotation'),
        (None, dict(weight=math.nan), r'weight nan of model\.tasks\.rotation'),
        (None, dict(rotations=(0, 50)), '50'),
    ],
)
def test_refuses(inputs, settings, message):
    with pytest.raises(ValueError, match=message):
        pair('simclr', **settings)[1].loss(inputs, [])


def test_refuses_what_predicts_rotations_already():
    rotnet = dict(
        type='mm_rotssl.RotNet', backbone=BACKBONE, neck=POOLING, head=HEAD
    )
    settings = dict(
        type='mm_rotssl.ESSL', algorithm=rotnet, neck=POOLING, head=HEAD
    )
    with pytest.raises(ValueError, match=r'a RotNet, .*without ESSL'):
        build(settings)


def test_hidden_layers():
    head = build(dict(HEAD, num_hidden=3))
    x = torch.randn(4, HEAD['in_channels'])
    want = x
    for i in range(0, 9, 3):
        linear, norm = head.hidden[i : i + 2]
        want = (want @ linear.weight.T + linear.bias).double()
        want = (want - want.mean(1, keepdim=True)) / (
            want.var(1, unbiased=False, keepdim=True) + norm.eps
        ).sqrt()
        want = (want * norm.weight + norm.bias).clamp(min=0).float()
    want = want @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head((x,)), want)
    assert len(list(head.parameters())) == 3 * 4 + 2


@pytest.mark.parametrize('name', ['in_channels', 'hid_channels', 'num_hidden'])
def test_head_refuses_widths_that_are_none(name):
    with pytest.raises(ValueError, match=rf'{name}=0\b.*must be positive'):
        build(dict(HEAD, **{name: 0}))


# --- in a run, and on two processes -----------------------------------------


def run(folder, epochs, resume=False):
    pipeline = [
        dict(
            type='mmpretrain.MultiView',
            num_views=[2, 1],
            transforms=[
                [dict(type='mmpretrain.RandomCrop', crop_size=size)]
                for size in (24, 16)
            ],
        ),
        dict(type='mmpretrain.PackInputs'),
    ]
    _, model = pair('moco')
    runner = Runner(
        model,
        str(folder),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(
                type='mm_rotssl.Digits', indices=12, pipeline=pipeline
            ),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        custom_hooks=[dict(type='mm_rotssl.EpochSeedHook')],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        experiment_name=f'test_essl_{next(COUNTER)}',
        log_level='ERROR',
        resume=resume,
    )
    runner.train()
    return runner.model.state_dict()


def test_resumed_run_equals_one_that_never_stopped(tmp_path):
    expected = run(tmp_path / 'a', 2)
    run(tmp_path / 'b', 1)
    found = run(tmp_path / 'b', 2, resume=True)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    assert (
        float(expected['tasks.algorithm.queue_ptr']) == 0
    )  # 24 keys, a queue of 8
    once = run(tmp_path / 'c', 1)
    assert not torch.equal(
        once['tasks.rotation.head.fc.weight'],
        expected['tasks.rotation.head.fc.weight'],
    )


class Flat(nn.Module):
    """Without normalization, which two processes do separately."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=2)

    def forward(self, x):
        return (F.relu(self.conv(x)),)


def flat_model():
    torch.manual_seed(0)
    settings = host_settings('self_classifier', Flat())
    # as the neck has normalization too
    settings['neck'] = nn.Linear(6, 4)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return ESSL(
            MODELS.build(settings),
            MODELS.build(HEAD),
            MODELS.build(POOLING),
        )


def _gradients(rank, inputs):
    part = inputs if rank is None else [v[rank::2] for v in inputs]
    model = flat_model()
    if rank is not None:
        model = nn.parallel.DistributedDataParallel(model)
    total = sum(
        value
        for key, value in model(part, [], mode='loss').items()
        if 'loss' in key
    )
    total.backward()
    return {
        name.removeprefix('module.'): p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def test_two_processes_give_the_gradient_of_one():
    inputs = views()
    expected = _gradients(None, inputs)
    assert len(expected) > 6
    for found in run_on_two(_gradients, inputs):
        assert set(found) == set(expected)
        for name, gradient in expected.items():
            np.testing.assert_allclose(
                found[name], gradient, rtol=1e-3, atol=1e-5, err_msg=name
            )
