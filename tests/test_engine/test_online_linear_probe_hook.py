"""Linear probes beside a run, against NumPy and against runs without."""

import copy
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gloo import run_on_two
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn

from mm_rotssl.engine.hooks import OnlineLinearProbeHook
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import InputError, read_checkpoint

COUNTER = itertools.count()
# per epoch, of 12 images in batches of 4
STEPS = 3
CLASSES = 10
MEAN, STD = 100.0, 50.0


class Plain(BaseModule):
    """Two stages; what an image becomes does not depend on others."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 5, 3, padding=1)
        self.two = nn.Conv2d(5, 6, 3, stride=2)

    def forward(self, x):
        one = self.one(x).relu()
        return one, self.two(one).relu()


class Last(Plain):
    """The second stage alone, as some algorithms want it."""

    def forward(self, x):
        return super().forward(x)[1:]


class Recorder(Hook):
    """Note what each step starts with, and what is logged behind it."""

    priority = 'LOWEST'

    def __init__(self, tensors=True):
        self.steps = []
        self.tensors = tensors

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        step = dict(logged={}, counts=[])
        if self.tensors:
            step['backbone'] = copy.deepcopy(runner.model.backbone)
            # copies of the hooks that are under test would be called
            step['backbone']._forward_hooks.clear()
            step['batch'] = copy.deepcopy(data_batch)
        self.steps.append(step)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=()):
        self.steps[-1]['loss'] = outputs['loss'].item()
        for key, buffer in runner.message_hub.log_scalars.items():
            if 'probe' in key:
                self.steps[-1]['logged'][key] = buffer.current()
                self.steps[-1]['counts'].append(len(buffer.data[0]))


def rotnet(**settings):
    return dict(
        type='mm_rotssl.RotNet',
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='mm_rotssl.RotationHead', in_channels=6),
        **settings,
    )


def projection(**settings):
    return dict(
        type='NonLinearNeck',
        in_channels=6,
        hid_channels=8,
        out_channels=6,
        with_avg_pool=True,
        **settings,
    )


def simclr():
    return dict(
        type='mm_rotssl.SimCLR',
        backbone=Last(),
        neck=projection(),
        head=dict(
            type='ContrastiveHead',
            loss=dict(type='CrossEntropyLoss'),
            temperature=0.2,
        ),
    )


def simsiam():
    return dict(
        type='SimSiam',
        backbone=Last(),
        neck=projection(),
        head=dict(
            type='LatentPredictHead',
            loss=dict(type='CosineSimilarityLoss'),
            predictor=projection() | dict(with_avg_pool=False),
        ),
    )


def self_classifier():
    return dict(
        type='mm_rotssl.SelfClassifier',
        neck=dict(
            type='mm_rotssl.SelfClassifierNeck', in_channels=6, hid_channels=8
        ),
        head=dict(
            type='mm_rotssl.SelfClassifierHead',
            in_channels=128,
            num_classes=[4],
        ),
    )


def dataset(views=(), **settings):
    pipeline = [dict(type='PackInputs')]
    if views:
        crops = [
            [dict(type='mm_rotssl.RandomResizedCropFlip', scale=scale)]
            for scale in (24, 16)
        ]
        multi = dict(type='MultiView', num_views=list(views), transforms=crops)
        multi['transforms'] = crops[: len(views)]
        pipeline.insert(0, multi)
    return dict(
        type='mm_rotssl.Digits', indices=12, pipeline=pipeline, **settings
    )


def build(folder, model, data, *hooks, epochs=2, **settings):
    torch.manual_seed(0)
    preprocessor = dict(
        type='SelfSupDataPreprocessor', mean=[MEAN] * 3, std=[STD] * 3
    )
    return Runner(
        model,
        str(folder),
        data_preprocessor=preprocessor,
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=data,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        custom_hooks=[dict(type='mm_rotssl.EpochSeedHook'), *hooks],
        default_scope='mmpretrain',
        experiment_name=f'test_online_probe_{next(COUNTER)}',
        randomness=dict(seed=3),
        log_level='ERROR',
        **settings,
    )


def probe(**settings):
    return dict(type='mm_rotssl.OnlineLinearProbeHook', **settings)


def hook_of(runner):
    (hook,) = (x for x in runner.hooks if isinstance(x, OnlineLinearProbeHook))
    return hook


class Reference:
    """Softmax regression by SGD with momentum, in float64."""

    def __init__(self, lr=0.01, momentum=0.9):
        self.lr, self.momentum = lr, momentum
        self.weights = {}
        self.speed = {}

    def step(self, stage, feats, labels):
        """Learn, and return the accuracy before, in percent."""
        x = (feats - feats.mean(0)) / np.sqrt(feats.var(0) + 1e-12)
        x = np.hstack([x, np.ones((len(x), 1))])
        w = self.weights.setdefault(stage, np.zeros((x.shape[1], CLASSES)))
        logits = x @ w
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = x.T @ (p - np.eye(CLASSES)[labels]) / len(x)
        speed = self.momentum * self.speed.get(stage, 0.0) + gradient
        self.speed[stage] = speed
        self.weights[stage] = w - self.lr * speed
        return 100 * np.mean(logits.argmax(1) == labels)


ALGORITHMS = {
    'rotnet': (rotnet(backbone=Plain()), dataset()),
    'rotnet_not_first': (
        rotnet(backbone=Plain(), rotations=(90, 0)),
        dataset(),
    ),
    'simclr': (simclr(), dataset([2])),
    'host': (simsiam(), dataset([2])),
    'self_classifier': (
        self_classifier() | dict(backbone=Last()),
        dataset([2, 2]),
    ),
    'essl': (
        dict(
            type='mm_rotssl.ESSL',
            algorithm=simclr(),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='mm_rotssl.RotationHead', in_channels=6),
        ),
        dataset([2, 1]),
    ),
    'second_task': (
        dict(
            type='mm_rotssl.MultiTask',
            backbone=Last(),
            tasks=dict(a=self_classifier(), b=rotnet()),
        ),
        dict(
            type='mm_rotssl.StackedDataset',
            datasets=dict(a=dataset([2]), b=dataset()),
        ),
    ),
}


@pytest.mark.parametrize('name', ALGORITHMS)
def test_every_algorithm(tmp_path, name):
    """Of the first view of each image, whatever the algorithm shows."""
    model, data = copy.deepcopy(ALGORITHMS[name])
    task = 'b' if name == 'second_task' else None
    runner = build(tmp_path, model, data, probe(task=task))
    recorder = Recorder()
    runner.register_hook(recorder)
    hook = hook_of(runner)
    runner.train()
    assert len(recorder.steps) == 2 * STEPS
    reference = Reference()
    for count, step in enumerate(recorder.steps, 1):
        batch = step['batch'][task] if task else step['batch']
        images = batch['inputs']
        images = images if torch.is_tensor(images) else images[0]
        labels = [int(x.gt_label) for x in batch['data_samples']]
        with torch.no_grad():
            stages = step['backbone'].double()((images.double() - MEAN) / STD)
        expected = {
            f'train/probe/accuracy_stage{i}': reference.step(
                i, maps.mean((2, 3)).numpy(), labels
            )
            for i, maps in enumerate(stages, 1)
        }
        assert step['logged'] == pytest.approx(expected)
        assert set(step['counts']) == {count}
    assert list(hook._probes) == [str(i) for i in reference.weights]
    for stage, weights in reference.weights.items():
        found = hook._probes[str(stage)]
        np.testing.assert_allclose(
            found.weight.detach(), weights[:-1].T, rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(
            found.bias.detach(), weights[-1], rtol=1e-3, atol=1e-6
        )
        assert np.abs(weights[:-1]).max() > 1e-3
    # nobody listens any more
    assert not runner.model.backbone._forward_hooks
    assert not runner.model.data_preprocessor._forward_hooks


def nin(**settings):
    return rotnet(
        backbone=dict(
            type='mm_rotssl.NIN',
            base_channels=6,
            num_stages=3,
            out_indices=(1, 2),
        ),
        **settings,
    )


def validation():
    loader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dataset(),
    )
    return dict(
        val_dataloader=loader,
        val_cfg=dict(type='mm_rotssl.KNNValLoop', reference_dataloader=loader),
        val_evaluator=[dict(type='mm_rotssl.KNNAccuracy', k=3)],
    )


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Three epochs with the hook."""
    folder = tmp_path_factory.mktemp('whole')
    runner = build(folder, nin(), dataset(), probe(), epochs=3)
    recorder = Recorder(tensors=False)
    runner.register_hook(recorder)
    runner.train()
    return folder, runner, recorder.steps


def same_state(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def momentum(optimizer):
    return {
        key: state['momentum_buffer']
        for key, state in optimizer.state_dict()['state'].items()
    }


def test_training_is_the_same_without(tmp_path, whole):
    _, runner, steps = whole
    random = torch.get_rng_state()
    plain = build(tmp_path / 'plain', nin(), dataset(), epochs=3)
    recorder = Recorder(tensors=False)
    plain.register_hook(recorder)
    plain.train()
    assert torch.equal(torch.get_rng_state(), random)
    same_state(plain.model.state_dict(), runner.model.state_dict())
    same_state(momentum(plain.optim_wrapper), momentum(runner.optim_wrapper))
    assert [s['loss'] for s in recorder.steps] == [s['loss'] for s in steps]
    assert not any(s['logged'] for s in recorder.steps)
    # the numbers of stages are the backbone's
    assert steps[-1]['logged'].keys() == {
        'train/probe/accuracy_stage2',
        'train/probe/accuracy_stage3',
    }


def test_validation_is_left_alone(tmp_path, whole):
    _, runner, _ = whole
    other = build(
        tmp_path, nin(), dataset(), probe(), epochs=3, **validation()
    )
    other.train()
    same_state(
        hook_of(other)._probes.state_dict(),
        hook_of(runner)._probes.state_dict(),
    )


@pytest.mark.parametrize('stop', [1, 2])
def test_resumed_equals_uninterrupted(tmp_path, whole, stop):
    folder, runner, steps = whole
    resumed = build(
        tmp_path,
        nin(),
        dataset(),
        probe(),
        epochs=3,
        load_from=str(folder / f'epoch_{stop}.pth'),
        resume=True,
    )
    recorder = Recorder(tensors=False)
    resumed.register_hook(recorder)
    resumed.train()
    assert [s['loss'] for s in recorder.steps] == [
        s['loss'] for s in steps[STEPS * stop :]
    ]
    assert [s['logged'] for s in recorder.steps] == [
        s['logged'] for s in steps[STEPS * stop :]
    ]
    one, other = hook_of(resumed), hook_of(runner)
    same_state(one._probes.state_dict(), other._probes.state_dict())
    same_state(momentum(one._optimizer), momentum(other._optimizer))


def go_on(folder, checkpoint, *hooks, resume=True, model=None):
    """One epoch more, of no step of the optimizer's."""
    runner = build(
        folder,
        model or nin(),
        dataset(),
        *hooks,
        epochs=4 if resume else 1,
        load_from=str(checkpoint),
        resume=resume,
    )
    runner.train()
    return runner


def test_settings_are_those_of_the_config(tmp_path, whole):
    folder, runner, _ = whole
    still = dict(type='SGD', lr=0.0, momentum=0.9)
    resumed = go_on(tmp_path, folder / 'epoch_3.pth', probe(optimizer=still))
    same_state(
        hook_of(resumed)._probes.state_dict(),
        hook_of(runner)._probes.state_dict(),
    )


def test_another_run_begins_anew(tmp_path, whole):
    folder, _, _ = whole
    still = dict(type='SGD', lr=0.0)
    other = go_on(
        tmp_path, folder / 'epoch_3.pth', probe(optimizer=still), resume=False
    )
    for value in hook_of(other)._probes.state_dict().values():
        assert not value.any()


def test_they_stay_in_checkpoints_before_the_first_step(whole):
    folder, _, _ = whole
    saved = read_checkpoint(folder / 'epoch_2.pth')['online_linear_probe']
    hook, again = OnlineLinearProbeHook(), {}
    hook.before_save_checkpoint(None, again)
    assert not again
    runner = SimpleNamespace(_resume=True)
    hook.after_load_checkpoint(runner, dict(online_linear_probe=saved))
    hook.before_save_checkpoint(runner, again)
    same_state(again['online_linear_probe']['probes'], saved['probes'])


def test_resumed_with_other_classes(tmp_path, whole):
    folder, _, _ = whole
    with pytest.raises(
        InputError, match=r"'2\.weight': \(10, 6\).*'2\.weight': \(11, 6\)"
    ):
        go_on(tmp_path, folder / 'epoch_3.pth', probe(num_classes=11))


def test_a_task_that_is_left_out(tmp_path):
    """Nothing is logged in its steps, and nothing fails."""
    model, data = copy.deepcopy(ALGORITHMS['second_task'])
    model['backbone'] = Last()
    weight = dict(
        type='mm_rotssl.TaskWeightHook', task='a', begin=2, end_iter=3
    )
    runner = build(tmp_path, model, data, probe(), weight)
    recorder = Recorder(tensors=False)
    runner.register_hook(recorder)
    runner.train()
    # the first task by default
    assert hook_of(runner).task == 'a'
    assert [s['counts'] for s in recorder.steps] == [[], [], [], [1], [2], [3]]


@pytest.mark.parametrize('views', [None, 2])
def test_no_labels(tmp_path, monkeypatch, views):
    model, data = copy.deepcopy(ALGORITHMS['simclr' if views else 'rotnet'])
    runner = build(tmp_path, model, data, probe())
    infos = runner.train_dataloader.dataset
    get = infos.get_data_info

    def unlabeled(i):
        info = get(i)
        # one of them is enough
        if i == 7:
            del info['gt_label']
        return info

    monkeypatch.setattr(infos, 'get_data_info', unlabeled)
    with pytest.raises(InputError, match=r'no gt_label.*with_label=True'):
        runner.train()


def one_step(hook, model, images, samples):
    """As the engine does it."""
    hub = MessageHub.get_instance(f'online_probe_{next(COUNTER)}')
    runner = SimpleNamespace(model=model, message_hub=hub)
    batch = dict(inputs=images, data_samples=samples)
    hook.before_train_iter(runner, 0, batch)
    data = model.data_preprocessor(batch, True)
    model(**data, mode='loss')
    hook.after_train_iter(runner, 0, batch)
    return {
        key: float(buffer.current()) for key, buffer in hub.log_scalars.items()
    }


def start(hook, **settings):
    torch.manual_seed(0)
    model = MODELS.build(rotnet(backbone=Plain(), **settings))
    hook.before_train(SimpleNamespace(model=model, hooks=[]))
    return model


def sample(*labels):
    found = DataSample()
    found.set_gt_label(list(labels))
    return found


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ([], 'A sample has no gt_label'),
        ([[1], [0, 2]], 'has 2 labels.*of one class only'),
        ([[1], [3]], 'gt_label=3.*num_classes=3'),
        ([[-1], [0]], 'gt_label=-1.*num_classes=3'),
    ],
)
def test_bad_labels(labels, message):
    hook = OnlineLinearProbeHook(num_classes=3)
    model = start(hook)
    with pytest.raises(InputError, match=message):
        one_step(
            hook, model, torch.rand(2, 3, 8, 8), [sample(*x) for x in labels]
        )


@pytest.mark.parametrize('rotations', [(90, 270), (0, 45)])
def test_images_that_the_backbone_never_gets(rotations):
    hook = OnlineLinearProbeHook(num_classes=3)
    model = start(hook, rotations=rotations)
    with pytest.raises(InputError, match=r'with model\.rotations without 0'):
        one_step(hook, model, torch.rand(2, 3, 8, 8), [sample(0), sample(1)])


def test_unknown_classes(tmp_path):
    data = dataset(metainfo=dict(classes=None))
    runner = build(tmp_path, nin(), data, probe())
    with pytest.raises(InputError, match=r'no classes\. Set num_classes'):
        runner.train()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('second_task', 'task="c" of .* a MultiTask of a, b'),
        ('essl', 'task="c" of .* a ESSL, without tasks'),
        ('rotnet', 'task="c" of .* a RotNet, without tasks'),
    ],
)
def test_no_such_task(tmp_path, name, message):
    model, data = copy.deepcopy(ALGORITHMS[name])
    runner = build(tmp_path, model, data, probe(task='c'))
    with pytest.raises(InputError, match=message):
        runner.train()


SIZES = (3, 5)


def steps_of(rank=None):
    """Three steps; a process has its part of the images of each."""
    hook = OnlineLinearProbeHook(num_classes=3)
    model = start(hook)
    rng = torch.Generator().manual_seed(0)
    logged = []
    for _ in range(3):
        images = torch.rand(sum(SIZES), 3, 8, 8, generator=rng)
        labels = torch.randint(3, (sum(SIZES),), generator=rng).tolist()
        if rank is not None:
            images = images.split(SIZES)[rank]
            first = sum(SIZES[:rank])
            labels = labels[first : first + SIZES[rank]]
        samples = [sample(label) for label in labels]
        logged.append(one_step(hook, model, images, samples))
    return dict(logged=logged, probes=dict(hook._probes.state_dict()))


def test_two_processes_equal_one():
    one = steps_of()
    both = run_on_two(steps_of)
    same_state(both[0]['probes'], both[1]['probes'])
    assert both[0]['logged'] == both[1]['logged']
    assert one['logged'] == [
        pytest.approx(figures) for figures in both[0]['logged']
    ]
    for name, value in one['probes'].items():
        torch.testing.assert_close(both[0]['probes'][name], value)
        assert value.any()
