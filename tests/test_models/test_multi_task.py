"""A mixture of tasks against the algorithms by themselves."""

import copy

import numpy as np
import pytest
import torch
from gloo import run_on_two
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage, MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.models import MultiTask

WEIGHTS = dict(rotation=0.5, exemplar=2.0, clusters=0.75)
BACKBONE = dict(
    type='mm_rotssl.NIN', base_channels=6, num_stages=3, out_indices=(2,)
)
POOLING = dict(type='mmpretrain.GlobalAveragePooling')
TASKS = dict(
    rotation=dict(
        type='mm_rotssl.RotNet',
        neck=POOLING,
        head=dict(type='mm_rotssl.RotationHead', in_channels=6),
    ),
    exemplar=dict(
        type='mm_rotssl.ExemplarCNN',
        neck=POOLING,
        head=dict(
            type='mm_rotssl.ExemplarHead', in_channels=6, num_exemplars=9
        ),
    ),
    clusters=dict(
        type='mm_rotssl.SelfClassifier',
        neck=dict(
            type='mm_rotssl.SelfClassifierNeck',
            in_channels=6,
            hid_channels=8,
            out_channels=5,
            norm_cfg=None,
        ),
        head=dict(
            type='mm_rotssl.SelfClassifierHead',
            in_channels=5,
            num_classes=(4, 7),
        ),
    ),
)
NECK = dict(
    type='mmpretrain.NonLinearNeck',
    in_channels=6,
    hid_channels=8,
    out_channels=5,
    num_layers=2,
    with_avg_pool=True,
)


class Dropping(nn.Module):
    """A backbone that draws random numbers and counts in a buffer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.frozen = nn.Parameter(torch.ones(6, 1, 1), requires_grad=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        x = self.norm(self.conv(x) * self.frozen).relu()
        return (nn.functional.dropout(x, 0.3, self.training),)


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')
    hub = MessageHub.get_current_instance()
    # BYOL's momentum depends on the share that is done: hardly anything
    hub.update_info_dict(dict(iter=0, max_iters=10**9))


def build(names=('rotation', 'exemplar', 'clusters'), **settings):
    torch.manual_seed(0)
    settings = {
        'backbone': BACKBONE,
        'weights': {
            name: weight for name, weight in WEIGHTS.items() if name in names
        },
        **settings,
    }
    tasks = {name: TASKS[name] for name in names}
    model = MultiTask(tasks=copy.deepcopy(tasks), **copy.deepcopy(settings))
    model.init_weights()
    return model


def alone(model, name, task=None):
    """The algorithm by itself, with copies of the model's weights."""
    task = copy.deepcopy(task or TASKS[name])
    single = MODELS.build(dict(task, backbone=copy.deepcopy(model.backbone)))
    state = {
        key.removeprefix(f'tasks.{name}.'): value.clone()
        for key, value in model.state_dict().items()
        if key.startswith((f'tasks.{name}.', 'backbone.'))
    }
    single.load_state_dict(state, strict=True)
    return single.train(model.training)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def sample(i, label):
    found = DataSample(metainfo=dict(sample_idx=i)).set_gt_label(8 - label)
    found.set_field(label, 'exemplar_label')
    return found


def batches():
    """What the tasks' own preprocessors would have given."""
    return dict(
        rotation=dict(inputs=draw(4, 3, 12, 12), data_samples=None),
        exemplar=dict(
            inputs=draw(6, 3, 8, 8, seed=1),
            data_samples=[sample(i, i) for i in range(6)],
        ),
        clusters=dict(
            inputs=[draw(4, 3, 8, 8, seed=seed) for seed in (2, 3)],
            data_samples=None,
        ),
    )


def step(model, inputs):
    """Losses and the total, with its gradients in `.grad`."""
    torch.manual_seed(5)
    losses = model(inputs, mode='loss')
    total, logs = model.parse_losses(losses)
    model.zero_grad()
    total.backward()
    return losses, total, logs


def gradients(model):
    return {
        name: parameter.grad for name, parameter in model.named_parameters()
    }


def test_weighted_sum_of_the_algorithms():
    model = build()
    inputs = batches()
    # before any step: running statistics move
    singles = {name: alone(model, name) for name in TASKS}
    losses, total, logs = step(model, inputs)
    expected, shared = 0.0, {}
    for name, single in singles.items():
        out = single(**inputs[name], mode='loss')
        (WEIGHTS[name] * out['loss']).backward()
        expected += WEIGHTS[name] * out['loss'].item()
        for key, value in out.items():
            weight = WEIGHTS[name] if key == 'loss' else 1
            place = f'{name}_{key}'
            if key == 'loss':
                place = f'loss_{name}'
            elif key.startswith(f'{name}_'):
                place = key
            assert losses.pop(place).item() == pytest.approx(
                weight * value.item(), rel=1e-6
            )
        for key, parameter in single.named_parameters():
            if key.startswith('backbone.'):
                shared[key] = shared.get(key, 0) + parameter.grad
            else:
                found = gradients(model)[f'tasks.{name}.{key}']
                torch.testing.assert_close(found, parameter.grad)
    assert not losses
    assert total.item() == pytest.approx(expected, rel=1e-6)
    assert logs['loss'] is total
    for key, grad in shared.items():
        torch.testing.assert_close(gradients(model)[key], grad)
    assert len(shared) == len(list(model.backbone.parameters()))


def test_labels_never_reach_the_loss():
    inputs = batches()
    want = step(build(), inputs)[1]
    for i, one in enumerate(inputs['exemplar']['data_samples']):
        one.set_gt_label(i)
    assert step(build(), inputs)[1] == want


def test_one_after_the_other_with_the_same_random_numbers():
    """Dropout and running statistics: in the order of the config."""
    model = build(backbone=Dropping())
    inputs = batches()
    singles = {name: alone(model, name) for name in TASKS}
    single = singles['rotation']
    torch.manual_seed(5)
    want = []
    for name, one in singles.items():
        # handed on from task to task
        one.backbone.load_state_dict(single.backbone.state_dict())
        want.append(one(**inputs[name], mode='loss')['loss'].item())
        single = one
    losses, _, _ = step(model, inputs)
    for name, loss in zip(TASKS, want, strict=True):
        assert losses[f'loss_{name}'].item() == pytest.approx(
            WEIGHTS[name] * loss, rel=1e-6
        )
    state = single.backbone.state_dict()
    assert state['norm.num_batches_tracked'] == 3
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


class Parts(nn.Module):
    """An algorithm with several losses, one of them a list."""

    def __init__(self, backbone, data_preprocessor):
        super().__init__()
        self.backbone = backbone
        self.data_preprocessor = nn.Identity()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def _run_forward(self, data, mode):
        assert mode == 'loss'
        feat = self.scale * self.backbone(data['inputs'])[0]
        return dict(
            loss_a=feat.square().mean(),
            b_loss=[feat.mean(), feat.abs().mean((1, 2, 3))],
            width=feat.std().detach(),
        )


def test_algorithm_of_several_losses():
    torch.manual_seed(0)
    model = MultiTask(
        backbone=Dropping(),
        tasks=dict(parts=dict(type=Parts)),
        weights=dict(parts=0.25),
        gradient_interval=1,
    )
    images = draw(4, 3, 8, 8)
    torch.manual_seed(5)
    feat = 3 * copy.deepcopy(model.backbone)(images)[0]
    losses, total, _ = step(model, dict(parts=dict(inputs=images)))
    assert set(losses) == {
        'loss_parts_a',
        'parts_b_loss',
        'parts_width',
        'parts_gradient_norm',
    }
    want = feat.square().mean() + feat.mean() + feat.abs().mean()
    assert total.item() == pytest.approx(want.item() / 4, rel=1e-5)
    assert losses['parts_width'].item() == pytest.approx(feat.std().item())
    length = sum(
        p.grad.square().sum().item()
        for p in model.backbone.parameters()
        if p.requires_grad
    )
    assert losses['parts_gradient_norm'].item() == pytest.approx(
        length**0.5, rel=1e-5
    )


# Weight 0.


@pytest.mark.parametrize('off', list(TASKS))
def test_weight_of_zero_leaves_a_task_out(off):
    """Bit for bit, with random numbers and statistics, for several steps."""
    names = [name for name in TASKS if name != off]
    weights = {**WEIGHTS, off: 0.0}
    one = build(backbone=Dropping(), weights=weights)
    other = build(names, backbone=Dropping())
    state = one.state_dict()
    other.load_state_dict({key: state[key] for key in other.state_dict()})
    optimizers = [
        OptimWrapper(torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
        for model in (one, other)
    ]
    before = copy.deepcopy(state)
    for _ in range(3):
        logs = []
        for model, optimizer in zip((one, other), optimizers, strict=True):
            data = {
                name: part
                for name, part in batches().items()
                if name in model.tasks
            }
            torch.manual_seed(5)
            logs.append(model.train_step(data, optimizer))
        assert logs[0].pop(f'loss_{off}') == 0
        assert logs[0] == logs[1]
    for key, value in other.state_dict().items():
        assert torch.equal(one.state_dict()[key], value), key
    # without weight decay its own parameters stay where they are
    for key, value in one.state_dict().items():
        moves = not key.startswith(f'tasks.{off}.')
        if value.is_floating_point() and 'frozen' not in key:
            assert torch.equal(value, before[key]) != moves, key


def test_gradients_of_what_is_left_out_are_zero():
    model = build(weights=dict(WEIGHTS, exemplar=0.0))
    inputs = batches()
    # not even where there is no number to multiply
    with torch.no_grad():
        model.tasks['exemplar'].head.fc.weight.fill_(float('inf'))
    # nor are its data looked at
    inputs.pop('exemplar')
    _, total, _ = step(model, inputs)
    assert total.isfinite()
    for name, grad in gradients(model).items():
        assert grad is not None, name
        assert (grad == 0).all() == name.startswith('tasks.exemplar.'), name


class Counting(nn.Module):
    """A preprocessor that counts its batches and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, data, training=False):
        self.calls.append(training)
        return dict(data, inputs=data['inputs'] + torch.rand(()))


def test_data_of_what_is_left_out_are_not_touched():
    model = build(weights=dict(WEIGHTS, exemplar=0.0))
    preprocessors = model.data_preprocessor.tasks
    for name in TASKS:
        preprocessors[name] = Counting()
    data = {
        name: dict(inputs=draw(2, 3, 8, 8), data_samples=None)
        for name in TASKS
    }
    torch.manual_seed(1)
    found = model.data_preprocessor(data, True)['inputs']
    assert list(found) == ['rotation', 'clusters']
    torch.manual_seed(1)
    for part in found.values():
        assert torch.equal(part['inputs'], draw(2, 3, 8, 8) + torch.rand(()))
    calls = {name: part.calls for name, part in preprocessors.items()}
    assert calls == dict(rotation=[True], exemplar=[], clusters=[True])


# Monitoring.


def test_gradient_norms_and_cosines():
    model = build(backbone=Dropping(), gradient_interval=1)
    inputs = batches()
    twin = build(backbone=Dropping())
    twin.load_state_dict(model.state_dict())
    losses, _, _ = step(model, inputs)
    found = {}
    for name in TASKS:
        own = copy.deepcopy(twin)
        torch.manual_seed(5)
        own(inputs, mode='loss')[f'loss_{name}'].backward()
        found[name] = np.concatenate(
            [
                p.grad.double().numpy().ravel()
                for p in own.backbone.parameters()
                if p.requires_grad
            ]
        )
        assert losses[f'{name}_gradient_norm'].item() == pytest.approx(
            np.sqrt((found[name] ** 2).sum()), rel=1e-4
        )
    names = list(TASKS)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            a, b = found[one], found[other]
            want = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
            assert losses[f'{one}_{other}_cosine'].item() == pytest.approx(
                want, abs=1e-4
            )
    logged = [key for key in losses if key.endswith(('norm', 'cosine'))]
    assert len(logged) == 6
    assert not any(losses[key].requires_grad for key in logged)


def test_monitoring_changes_nothing():
    models = [
        build(backbone=Dropping(), gradient_interval=interval)
        for interval in (0, 1)
    ]
    models[1].load_state_dict(models[0].state_dict())
    for number in range(2):
        totals, randoms = [], []
        for model in models:
            # gradients that were there before
            model.zero_grad()
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.full_like(parameter, 0.5)
            torch.manual_seed(number)
            losses = model(batches(), mode='loss')
            randoms.append(torch.get_rng_state())
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    assert (parameter.grad == 0.5).all(), name
            totals.append(model.parse_losses(losses)[0])
            totals[-1].backward()
        assert torch.equal(*totals)
        assert torch.equal(*randoms)
        one, other = map(gradients, models)
        for name, grad in one.items():
            if grad is not None:
                assert torch.equal(grad, other[name]), name
        one, other = (model.state_dict() for model in models)
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


def test_when_gradients_are_measured():
    model = build(['rotation', 'clusters'], gradient_interval=3)
    hub = MessageHub.get_current_instance()

    def is_measured():
        losses = model(batches(), mode='loss')
        found = {key for key in losses if key.endswith(('norm', 'cosine'))}
        assert found in (
            set(),
            {
                'rotation_gradient_norm',
                'clusters_gradient_norm',
                'rotation_clusters_cosine',
            },
        )
        return bool(found)

    found = []
    for i in range(7):
        hub.update_info('iter', i)
        found.append(is_measured())
    assert found == [True, False, False, True, False, False, True]
    with torch.no_grad():
        assert not is_measured()
    model.eval()
    assert not is_measured()
    model.train()
    model.gradient_interval = 0
    assert not is_measured()
    # those that take part
    model.gradient_interval = 1
    model.set_weight('rotation', 0)
    losses = model(batches(), mode='loss')
    assert 'clusters_gradient_norm' in losses
    assert not {'rotation_gradient_norm', 'rotation_clusters_cosine'} & set(
        losses
    )


# Names.


def byol():
    return dict(
        type='mmpretrain.BYOL',
        neck=NECK,
        head=dict(
            type='mmpretrain.LatentPredictHead',
            loss=dict(type='mmpretrain.CosineSimilarityLoss'),
            predictor=dict(NECK, in_channels=5, with_avg_pool=False),
        ),
    )


def moco():
    return dict(
        type='mmpretrain.MoCo',
        queue_len=8,
        feat_dim=5,
        neck=NECK,
        head=dict(
            type='mmpretrain.ContrastiveHead',
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )


def build_upstream(**settings):
    torch.manual_seed(0)
    model = MultiTask(
        backbone=Dropping(),
        tasks=dict(rotation=TASKS['rotation'], byol=byol(), moco=moco()),
        **settings,
    )
    model.init_weights()
    return model


def test_every_tensor_is_there_once(tmp_path):
    model = build_upstream()
    state = model.state_dict()
    places = [value.data_ptr() for value in state.values()]
    assert len(set(places)) == len(places)
    names = {name.split('.')[0] for name in state}
    assert names == {'backbone', 'tasks'}
    assert not [name for name in state if 'backbone' in name[1:]]
    assert 'tasks.moco.queue' in state
    assert 'tasks.byol.target_net.module.0.conv.weight' in state
    # the modules, too
    modules = list(model.named_modules(remove_duplicate=False))
    assert len({id(module) for _, module in modules}) == len(modules)
    # a file that was written is read strictly
    torch.save(state, tmp_path / 'a.pth')
    torch.manual_seed(1)
    other = build_upstream()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True))
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name])
    # and the backbone by its prefix
    backbone = Dropping()
    prefix = 'backbone.'
    backbone.load_state_dict(
        {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
    )
    assert all(
        task.backbone is model.backbone for task in model.tasks.values()
    )


def test_optimizer_takes_each_parameter_once():
    model = build()
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=1.0, weight_decay=0.5),
            paramwise_cfg=dict(
                custom_keys={
                    'backbone': dict(lr_mult=0.1),
                    'tasks.clusters': dict(lr_mult=3.0, decay_mult=0.0),
                },
                norm_decay_mult=0.25,
            ),
        ),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            name = names.pop(id(parameter))
            want = (
                (0.1, 0.5)
                if name.startswith('backbone.')
                else (3.0, 0.0)
                if name.startswith('tasks.clusters.')
                else (1.0, 0.5)
            )
            assert (group['lr'], group['weight_decay']) == want, name
    # none is left
    assert not names


def test_copies_share_a_backbone_of_their_own():
    model = build()
    average = ExponentialMovingAverage(model)
    for other in (copy.deepcopy(model), average.module):
        assert other.backbone is not model.backbone
        for task in other.tasks.values():
            assert task.backbone is other.backbone
    other = copy.deepcopy(model)
    other.set_weight('rotation', 0)
    assert model.weights == WEIGHTS
    # also what prepares its data looks at its weights
    data = {
        name: dict(inputs=draw(2, 3, 8, 8), data_samples=None)
        for name in TASKS
    }
    assert list(other.data_preprocessor(data)['inputs']) == [
        'exemplar',
        'clusters',
    ]


def test_parts_are_initialized_as_their_config_says():
    def constant(value, layer):
        return dict(type='Constant', layer=layer, val=value)

    tasks = dict(rotation=copy.deepcopy(TASKS['rotation']))
    tasks['rotation']['head']['init_cfg'] = constant(0.5, 'Linear')
    backbone = dict(BACKBONE, init_cfg=constant(0.25, 'Conv2d'))
    model = MultiTask(backbone, tasks)
    model.init_weights()
    assert (model.tasks['rotation'].head.fc.weight == 0.5).all()
    convolutions = [
        m for m in model.backbone.modules() if isinstance(m, nn.Conv2d)
    ]
    assert convolutions
    assert all((m.weight == 0.25).all() for m in convolutions)


def test_dtype_reaches_all():
    model = build().double()
    assert all(p.dtype == torch.float64 for p in model.parameters())
    assert model.tasks['rotation'].backbone is model.backbone


# Momentum encoders of mmpretrain.


def test_momentum_encoders_copy_the_shared_backbone():
    model = build_upstream(weights=dict(rotation=0.0, moco=2.0))
    single = alone(model, 'byol', byol())
    views = [draw(4, 3, 8, 8, seed=seed) for seed in (2, 3)]
    inputs = {
        name: dict(inputs=views, data_samples=None) for name in model.tasks
    }
    torch.manual_seed(5)
    want = single(views, mode='loss')['loss']
    losses, _, _ = step(model, inputs)
    assert torch.equal(losses['loss_byol'], want)
    assert losses['loss_moco'] > 0
    task = model.tasks['byol']
    name = 'conv.weight'
    old = dict(model.backbone.named_parameters())[name].detach().clone()
    target = dict(task.target_net.module[0].named_parameters())[name]
    assert torch.equal(target, old)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    optimizer.step()
    new = dict(model.backbone.named_parameters())[name].detach().clone()
    assert not torch.equal(new, old)
    assert torch.equal(target, old)
    step(model, inputs)
    # momentum 0.004 of BYOL, 0.001 of MoCo
    torch.testing.assert_close(target, 0.996 * old + 0.004 * new)
    target = dict(model.tasks['moco'].encoder_k.module[0].named_parameters())
    torch.testing.assert_close(target[name], 0.999 * old + 0.001 * new)
    assert model.tasks['moco'].queue_ptr == 0  # 2 * 4 of 8


# Data.

NORM = dict(mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 5.0])


def normalized(images, mean, std):
    return (images.float() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(
        std
    ).view(3, 1, 1)


def test_each_task_prepares_its_data():
    tasks = copy.deepcopy(TASKS)
    own = dict(mean=[1.0] * 3, std=[3.0] * 3, bgr_to_rgb=True)
    tasks['clusters']['data_preprocessor'] = own
    model = MultiTask(BACKBONE, tasks, data_preprocessor=dict(NORM))
    kinds = {
        name: type(part).__name__
        for name, part in model.data_preprocessor.tasks.items()
    }
    assert kinds == dict(
        rotation='SelfSupDataPreprocessor',
        exemplar='DeformationDataPreprocessor',
        clusters='SelfSupDataPreprocessor',
    )
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    samples = [DataSample() for _ in images]
    data = dict(
        rotation=dict(inputs=images, data_samples=samples),
        exemplar=dict(inputs=images[:2], data_samples=samples[:2]),
        clusters=dict(inputs=[images, images[:1]], data_samples=samples[:3]),
    )
    out = model.data_preprocessor(data, True)
    assert set(out) == {'inputs'}
    parts = out['inputs']
    for name, part in parts.items():
        assert len(part['data_samples']) == len(data[name]['data_samples'])
    torch.testing.assert_close(
        parts['rotation']['inputs'], normalized(images, **NORM)
    )
    torch.testing.assert_close(
        parts['exemplar']['inputs'], normalized(images[:2], **NORM)
    )
    for found, view in zip(
        parts['clusters']['inputs'], (images, images[:1]), strict=True
    ):
        want = normalized(view.flip(1), own['mean'], own['std'])
        torch.testing.assert_close(found, want)
    # images alone, in validation
    plain = dict(inputs=images, data_samples=samples)
    torch.testing.assert_close(
        model.data_preprocessor(plain)['inputs'], normalized(images, **NORM)
    )
    # the config is not written to
    assert 'data_preprocessor' not in tasks['rotation']
    assert own.keys() == {'mean', 'std', 'bgr_to_rgb'}


def test_deformations_are_made_by_their_own_task():
    settings = dict(type='mm_rotssl.DeformationDataPreprocessor', patch_size=6)
    tasks = copy.deepcopy(TASKS)
    tasks['exemplar']['data_preprocessor'] = settings
    model = MultiTask(BACKBONE, tasks)
    single = MODELS.build(settings)
    images = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)
    samples = [DataSample() for _ in images]
    for i, one in enumerate(samples):
        # rotated and moved, without recoloring
        numbers = [0, 12 - i, 10, 12 - i, 0, 10]
        one.set_field(np.array(numbers, np.float32), 'deformation')
    data = {name: dict(inputs=images, data_samples=samples) for name in TASKS}
    want = single(data['exemplar'])['inputs']
    assert want.shape == (2, 3, 6, 6)
    found = model.data_preprocessor(data)['inputs']
    assert torch.equal(found['exemplar']['inputs'], want)
    assert torch.equal(found['rotation']['inputs'], images.float())


def test_features():
    model = build().eval()
    images = draw(3, 3, 12, 12)
    feats = model(images)
    want = model.backbone(images)
    assert torch.equal(feats[0], want[0])
    with pytest.raises(RuntimeError, match='Invalid mode'):
        model(images, mode='else')


# Errors.


def change(**settings):
    return lambda: build(**settings)


def rename(name):
    return lambda: MultiTask(BACKBONE, {name: TASKS['rotation']})


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: MultiTask(BACKBONE, {}), r'model\.tasks names no task'),
        (rename('a.b'), r'named "a\.b": names consist of'),
        (rename(''), 'named "": names consist of'),
        (rename('keys'), 'named "keys": .* methods of a ModuleDict'),
        (rename('lossless'), 'named "lossless".*added to the loss'),
        (rename('inputs'), 'named "inputs".*choose another'),
        (rename('data_samples'), 'named "data_samples"'),
        (
            change(weights=dict(colors=1.0)),
            'weight for "colors", and model.tasks has rotation, exemplar, cl',
        ),
        (
            change(weights=dict(rotation=-0.1)),
            r'weight -0\.1 of model\.tasks\.rotation must be finite and not n',
        ),
        (change(weights=dict(clusters=float('inf'))), 'weight inf of'),
        (change(weights=dict(clusters=float('nan'))), 'weight nan of'),
        (change(gradient_interval=-1), r'model\.gradient_interval=-1 must'),
        (
            lambda: MultiTask(
                BACKBONE, dict(a=dict(TASKS['rotation'], backbone=BACKBONE))
            ),
            r'model\.tasks\.a has a backbone of its own.*leave it out',
        ),
        (
            lambda: MultiTask(BACKBONE, dict(a=dict(type=NoBackbone))),
            r'model\.tasks\.a, a NoBackbone, has no backbone that',
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class NoBackbone(nn.Module):
    def __init__(self, **_):
        super().__init__()


def test_tasks_without_weight_have_one():
    model = MultiTask(BACKBONE, copy.deepcopy(TASKS), dict(exemplar=3))
    assert model.weights == dict(rotation=1, exemplar=3, clusters=1)


def test_datasets_and_tasks_must_fit():
    model = build()
    data = batches()
    data.pop('exemplar')
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(
        ValueError,
        match=r'tasks\.exemplar gets no data: .* rotation, clusters\. Add exe',
    ):
        model.train_step(data, optimizer)
    data = batches()
    data['colors'] = data['rotation']
    with pytest.raises(
        ValueError,
        match=r'has data for "colors", and model\.tasks only rotation, e',
    ):
        model.train_step(data, optimizer)
    with pytest.raises(
        ValueError, match='no data of their own for the tasks rotation,'
    ):
        model.train_step(batches()['rotation'], optimizer)


def test_nothing_to_train():
    model = build(weights=dict.fromkeys(TASKS, 0))
    with pytest.raises(ValueError, match='All weights are 0, of rotation, e'):
        model(batches(), mode='loss')


class Named(Parts):
    def _run_forward(self, data, mode):
        loss = self.backbone(data['inputs'])[0].mean()
        return dict(b_x=loss, x=loss)


def test_names_that_collide():
    tasks = dict(a=dict(type=Named), a_b=dict(type=Named))
    model = MultiTask(Dropping(), tasks)
    inputs = {name: dict(inputs=draw(2, 3, 8, 8)) for name in tasks}
    with pytest.raises(
        ValueError, match=r'model\.tasks give a "a_b_x"\. Rename "a_b"'
    ):
        model(inputs, mode='loss')


# Several processes.


def _build_for_two(**weights):
    init_default_scope('mmpretrain')
    MessageHub.get_current_instance().update_info('iter', 0)
    model = build(
        ['rotation', 'clusters'], weights=weights, gradient_interval=1
    )
    # statistics of batch normalization are those of a process
    model.backbone.eval()
    return model


def _halves(rank=None):
    rows = slice(rank, None, 2 if rank is not None else 1)
    inputs = batches()
    return dict(
        rotation=dict(inputs=inputs['rotation']['inputs'][rows]),
        clusters=dict(inputs=[v[rows] for v in inputs['clusters']['inputs']]),
    )


SPLIT = (dict(rotation=0.5, clusters=2.0), dict(rotation=0.0))


def _steps_of_two(rank):
    outs = []
    for weights in SPLIT:
        model = _build_for_two(**weights)
        wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
        losses = wrapped(_halves(rank), mode='loss')
        model.parse_losses(losses)[0].backward()
        losses = {name: value.detach() for name, value in losses.items()}
        grads = {name: p.grad for name, p in model.named_parameters()}
        outs.append(dict(losses=losses, grads=grads))
    return outs


def test_two_processes_equal_one():
    found = run_on_two(_steps_of_two)
    for weights, *outs in zip(SPLIT, *found, strict=True):
        model = _build_for_two(**weights)
        losses = model(_halves(), mode='loss')
        model.parse_losses(losses)[0].backward()
        for name, value in losses.items():
            pair = [out['losses'][name].item() for out in outs]
            measured = name.endswith(('norm', 'cosine'))
            if measured:
                # of the whole batch
                assert pair[0] == pair[1]
            if measured or 'loss' in name:
                assert sum(pair) / 2 == pytest.approx(
                    value.item(), rel=1e-4, abs=1e-6
                )
        for out in outs:
            for name, parameter in model.named_parameters():
                # Of the whole: how halves round differs by processor, and a
                # single number may be the difference of larger ones.
                difference = out['grads'][name] - parameter.grad
                assert difference.norm() <= 1e-3 * parameter.grad.norm(), name


def test_sparse_classifiers_are_left_to_their_task():
    tasks = copy.deepcopy(TASKS)
    tasks['exemplar']['head']['num_sampled'] = 3
    model = MultiTask(BACKBONE, tasks, dict(exemplar=0.0))
    names = {f'tasks.exemplar.head.fc.{name}' for name in ('weight', 'bias')}
    assert set(model._ddp_params_and_buffers_to_ignore) == names
    assert names < set(dict(model.named_parameters()))
    # no dense gradient for them while the task is left out
    step(model, batches())
    for name, grad in gradients(model).items():
        assert (grad is None) == (name in names), name
