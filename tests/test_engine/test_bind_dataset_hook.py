import itertools
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import (
    Compose,
    ConcatDataset,
    RepeatDataset,
    default_collate,
)
from mmengine.registry import init_default_scope
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mm_rotssl.datasets import Digits, RotationNoise, StackedDataset
from mm_rotssl.engine.hooks import BindDatasetHook, CheckpointCheckHook
from mm_rotssl.models import (
    MemoryBank,
    MultiTask,
    NCELoss,
    NearestNeighborQueue,
)

COUNTER = itertools.count()


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory = MemoryBank(feat_dim=4)
        self.loss_module = NCELoss()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.head = Head()
        self.queue = NearestNeighborQueue(length=3, dim=2)
        self.told = None

    def bind_dataset(self, names):
        self.told = names


# all that knows images, and what belongs to a bank
KNOWING = ('head.memory.', 'head.loss_module.', 'queue.')


class Loop(BaseLoop):
    def run(self):
        pass


@cache
def all_digits():
    return Digits(size=8, pipeline=[], indices=30)


def digits(indices=20):
    return all_digits().get_subset(indices)


def bound(dataset, resume=False, model=None):
    """A runner whose hook has run."""
    runner = SimpleNamespace(
        model=model or Model(),
        train_dataloader=SimpleNamespace(dataset=dataset),
        _resume=resume,
        _load_from='some/file.pth',
    )
    runner._train_loop = Loop.__new__(Loop)
    BindDatasetHook().before_run(runner)
    return runner


def load(runner, state_dict):
    checkpoint = dict(state_dict=state_dict)
    for hook in (BindDatasetHook(), CheckpointCheckHook()):
        hook.after_load_checkpoint(runner, checkpoint)
    return checkpoint['state_dict']


def test_bank_and_model_are_told():
    runner = bound(digits())
    assert len(runner.model.head.memory) == 20
    assert runner.model.told[:6] == [
        f'digits/{i:04d}' for i in (0, 1, 2, 3, 5, 6)
    ]


def test_no_training_no_binding():
    runner = SimpleNamespace(_train_loop=dict(type='EpochBasedTrainLoop'))
    BindDatasetHook().before_run(runner)


def test_repeated_images_have_one_row():
    runner = bound(RepeatDataset(digits(), times=3))
    assert len(runner.model.head.memory) == 20


def test_joined_datasets_are_refused():
    with pytest.raises(ValueError, match=r'20 \+ 5 images.*same index'):
        bound(ConcatDataset([digits(), digits(5)]))


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_same_images_resume(prefix):
    old = bound(digits()).model.state_dict()
    runner = bound(digits(), resume=True)
    state = load(runner, {prefix + k: v for k, v in old.items()})
    assert len(state) == len(old)


@pytest.mark.parametrize('prefix', ['', 'module.'])
# fewer; as many, in another order
@pytest.mark.parametrize('indices', [19, [*range(1, 20), 0]])
def test_other_images(indices, prefix):
    old = bound(digits()).model.state_dict()
    old = {prefix + k: v for k, v in old.items()}
    with pytest.raises(
        ValueError,
        match=r'^train_dataloader\.dataset is not the training set of the '
        r'checkpoint: model\.head\.memory knows other.*load_from',
    ):
        load(bound(digits(indices), resume=True), dict(old))
    # weights alone: all but what knows the images
    state = load(bound(digits(indices)), dict(old))
    knowing = tuple(prefix + key for key in KNOWING)
    assert set(state) == {k for k in old if not k.startswith(knowing)}
    # of the same images everything
    assert set(load(bound(digits()), dict(old))) == set(old)


def test_checkpoints_that_do_not_say_whose_images_they_know():
    """As those of a fixed length and no hook, or queues from before 0.1.0."""
    old = bound(digits()).model.state_dict()
    old['head.memory.fingerprint'] = torch.tensor(0)
    del old['queue.fingerprint']
    runner = bound(digits(), resume=True)
    assert set(load(runner, dict(old))) == set(old)
    # another run starts without
    state = load(bound(digits()), dict(old))
    assert set(state) == {k for k in old if not k.startswith(KNOWING)}


class Vector(nn.Module):
    """A backbone that gives a vector."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 6)

    def forward(self, x):
        return (self.fc(x.flatten(1)),)


def decoupling(**settings):
    return dict(
        type='mm_rotssl.RotationFeatureDecoupling',
        rotation_channels=2,
        head=dict(type='mm_rotssl.RotationHead'),
        instance_head=dict(
            type='mm_rotssl.InstanceDiscriminationHead',
            in_channels=4,
            num_negatives=3,
            memory=dict(feat_dim=5, **settings.pop('memory', {})),
        ),
        **settings,
    )


def clusters(length=4):
    neck = dict(
        type='mm_rotssl.SelfClassifierNeck',
        in_channels=6,
        hid_channels=8,
        out_channels=5,
        norm_cfg=None,
    )
    head = dict(
        type='mm_rotssl.SelfClassifierHead', in_channels=5, num_classes=(4,)
    )
    queue = dict(type='mm_rotssl.NearestNeighborQueue', length=length, dim=5)
    return dict(
        type='mm_rotssl.SelfClassifier', neck=neck, head=head, queue=queue
    )


ROTATION = dict(
    type='mm_rotssl.RotNet',
    head=dict(type='mm_rotssl.RotationHead', in_channels=6),
)


def mixture(**tasks):
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    return MultiTask(backbone=Vector(), tasks=tasks)


def tiny(indices, views=False, transforms=()):
    """Digits of 8 x 8 pixels."""
    view = [[dict(type='mm_rotssl.RandomResizedCropFlip', scale=8)]]
    pipeline = [*transforms, dict(type='PackInputs')]
    if views:
        pipeline.insert(
            0, dict(type='MultiView', num_views=[2], transforms=view)
        )
    init_default_scope('mmpretrain')
    dataset = digits(indices)
    dataset.pipeline = Compose(pipeline)
    return dataset


# not in the order of the dataset
FIRST = [9, 4, 0, 7, 2, 5, 1]
SECOND = [3, 8, 6, 1]


def banks(*tasks):
    """Keys of their memory banks, and of what belongs to these."""
    return [
        f'tasks.{task}.instance_head.{part}'
        for task in tasks
        for part in ('memory', 'loss_module')
    ]


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_tasks_are_told_their_own_images(wrap, tmp_path):
    names = [info['img_path'] for info in all_digits()]
    noise = np.random.RandomState(0).rand(len(FIRST), 4)
    # the rows of the file are found by name: here in reverse
    RotationNoise(
        [names[i] for i in FIRST[::-1]], noise[::-1], (0, 90, 180, 270)
    ).save(tmp_path / 'p.npz')
    noisy = dict(
        type='mm_rotssl.LoadRotationNoise', file=str(tmp_path / 'p.npz')
    )
    model = mixture(
        one=decoupling(),
        one_more=decoupling(),
        clusters=clusters(),
        rotation=ROTATION,
    )
    told = {}
    for task in ('one', 'one_more', 'clusters'):
        part = nn.Module()
        part.bind_dataset = lambda keys, task=task: told.update({task: keys})
        model.tasks[task].part = part
    datasets = dict(
        # in another order than the tasks
        clusters=tiny(SECOND, views=True),
        one_more=tiny(SECOND[:3]),
        one=RepeatDataset(tiny(FIRST, transforms=[noisy]), times=2),
        # nothing tells its images apart, and nothing has to
        rotation=ConcatDataset([tiny(SECOND), tiny(FIRST)]),
    )
    bound(StackedDataset(datasets), model=wrap(model))
    assert told == dict(
        one=[names[i] for i in FIRST],
        one_more=[names[i] for i in SECOND[:3]],
        clusters=[names[i] for i in SECOND],
    )
    one, more = model.tasks['one'], model.tasks['one_more']
    assert len(one.instance_head.memory) == 7
    assert len(more.instance_head.memory) == 3
    (transform, _) = datasets['one'].dataset.pipeline.transforms
    for index, row in enumerate(noise):
        found = transform(dict(sample_idx=index))['rotation_noise']
        np.testing.assert_allclose(found, row, rtol=1e-6)


def test_a_step_writes_the_rows_of_its_images():
    model = mixture(
        clusters=clusters(length=3),
        one=decoupling(),
        other=decoupling(memory=dict(momentum=0.25)),
    )
    datasets = dict(clusters=FIRST, one=SECOND, other=FIRST[:5])
    dataset = StackedDataset(
        {
            name: tiny(indices, views=name == 'clusters')
            for name, indices in datasets.items()
        }
    )
    bound(dataset, model=model)
    before = {key: v.clone() for key, v in model.state_dict().items()}
    entries = [6, 0, 4]
    batch = default_collate([dataset[i] for i in entries])
    data = model.data_preprocessor(batch, True)
    sum(
        value
        for key, value in model(**data, mode='loss').items()
        if 'loss' in key
    ).backward()

    def numbers(key):
        return before[key].double().numpy()

    def places(number):
        """Places in the dataset of the images of the batch."""
        length = len(list(datasets.values())[number])
        return [(i + number * length // 3) % length for i in entries]

    raw = all_digits()
    for number, (name, momentum) in enumerate(
        dict(one=0.5, other=0.25).items(), start=1
    ):
        prefix = f'tasks.{name}.instance_head'
        old = numbers(f'{prefix}.memory.feature_bank')
        assert old.shape == (len(datasets[name]), 5)
        rows = old.copy()
        for place in places(number):
            img = raw[datasets[name][place]]['img'].astype(float)
            img = img.transpose(2, 0, 1)
            copies = [np.rot90(img, k, (1, 2)).ravel() for k in range(4)]
            feats = np.mean(copies, 0) @ numbers('backbone.fc.weight').T
            feats += numbers('backbone.fc.bias')
            # the part after those of rotation_channels
            feats = feats[2:] @ numbers(f'{prefix}.fc.weight').T
            feats += numbers(f'{prefix}.fc.bias')
            feats /= np.linalg.norm(feats)
            # once, also where an image comes twice, as in a short dataset
            row = momentum * old[place] + (1 - momentum) * feats
            rows[place] = row / np.linalg.norm(row)
        got = model.tasks[name].instance_head.memory.feature_bank
        np.testing.assert_allclose(got.numpy(), rows, atol=1e-5)
        moved = np.abs(rows - old).max(1) > 1e-2
        assert set(np.flatnonzero(moved)) == set(places(number))
    queue = model.tasks['clusters'].queue
    assert queue.indices.tolist() == places(0)
    assert bool(queue.is_full)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_other_images_of_one_dataset(prefix):
    def told(one=FIRST, other=SECOND, resume=False):
        model = mixture(one=decoupling(), other=decoupling())
        datasets = dict(one=tiny(one), other=tiny(other))
        return bound(StackedDataset(datasets), resume, model)

    old = told().model.state_dict()
    old = {prefix + key: value for key, value in old.items()}
    assert set(load(told(resume=True), dict(old))) == set(old)
    for changed, dataset in (
        (dict(one=FIRST[::-1]), 'one'),
        (dict(other=SECOND[:3]), 'other'),
    ):
        with pytest.raises(
            ValueError,
            match=r'^train_dataloader\.dataset\.datasets\.'
            rf'{dataset} is not the training set.*: model\.tasks\.{dataset}',
        ):
            load(told(**changed, resume=True), dict(old))
        # weights alone: the other dataset's bank is still that of its images
        names = tuple(prefix + key for key in banks(dataset))
        state = load(told(**changed), dict(old))
        assert set(state) == {k for k in old if not k.startswith(names)}
        assert len(state) < len(old)


class Exemplars:
    """A dataset of some seed patches, and nothing else said of them."""

    def __init__(self, *names):
        self.seed_patches = SimpleNamespace(names=list(names))


def exemplar_cnn(number):
    head = dict(
        type='mm_rotssl.ExemplarHead', in_channels=6, num_exemplars=number
    )
    return dict(type='mm_rotssl.ExemplarCNN', head=head)


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_classes_of_exemplars_are_compared_with_seed_patches(wrap):
    def check(numbers, **datasets):
        tasks = zip(
            ('one', 'one_more'), map(exemplar_cnn, numbers), strict=True
        )
        model = mixture(**dict(tasks))
        bound(StackedDataset(datasets), model=wrap(model))

    four, five = Exemplars(*'abcd'), Exemplars(*'abcde')
    check((4, 5), one=four, one_more=five)
    # in whatever order
    check((4, 5), one_more=five, one=four)
    for numbers, name, found, number in (
        ((5, 5), 'one', 4, 5),
        ((4, 4), 'one_more', 5, 4),
    ):
        with pytest.raises(
            ValueError,
            match=rf'^train_dataloader\.dataset\.datasets\.{name}: {found} '
            rf'samples .*num_exemplars={number} of ExemplarHead\. Set',
        ):
            check(numbers, one=four, one_more=five)
    # images instead of seed patches
    with pytest.raises(ValueError, match=r'one_more: 4 .*ExemplarDataset'):
        check((4, 5), one=four, one_more=tiny(SECOND))


def test_other_seed_patches():
    """The same number of others stops a resumed run."""

    def told(one, more, resume=False):
        model = mixture(one=exemplar_cnn(4), one_more=exemplar_cnn(5))
        datasets = dict(one=Exemplars(*one), one_more=Exemplars(*more))
        return bound(StackedDataset(datasets), resume, model)

    old = told('abcd', 'abcde').model.state_dict()
    assert set(load(told('abcd', 'abcde', True), dict(old))) == set(old)
    for one, more, name in (
        ('dcba', 'abcde', 'one'),
        ('abcd', 'abcdf', 'one_more'),
    ):
        with pytest.raises(
            ValueError,
            match=rf'datasets\.{name} is not the .*tasks\.{name}\.head knows',
        ):
            load(told(one, more, resume=True), dict(old))
    state = load(told('dcba', 'abcde'), dict(old))
    assert set(old) - set(state) == {
        f'tasks.one.head.{part}'
        for part in ('fc.weight', 'fc.bias', 'fingerprint')
    }
    # those from before 0.1.0 did not say which ones they are of
    before = {k: v for k, v in old.items() if not k.endswith('fingerprint')}
    assert set(load(told('dcba', 'abcde', True), dict(before))) == set(before)


@pytest.mark.parametrize(
    ('dataset', 'error', 'message'),
    [
        (tiny(SECOND), ValueError, 'length=7 rows, and .* 4 different'),
        (
            ConcatDataset([tiny(SECOND), tiny(FIRST)]),
            ValueError,
            r'4 \+ 7 images.*same index',
        ),
        ([1, 2], TypeError, 'is a list'),
    ],
)
def test_errors_name_the_dataset(dataset, error, message):
    model = mixture(one=decoupling(), other=decoupling(memory=dict(length=7)))
    datasets = StackedDataset(dict(one=tiny(FIRST), other=dataset))
    place = r'^train_dataloader\.dataset\.datasets\.other: '
    with pytest.raises(error, match=f'{place}.*{message}'):
        bound(datasets, model=model)


def run(folder, epochs, resume=None, one=FIRST):
    datasets = dict(
        one=tiny(one), other=tiny(SECOND), clusters=tiny(FIRST, views=True)
    )
    model = mixture(
        one=decoupling(), other=decoupling(), clusters=clusters(length=5)
    )
    runner = Runner(
        model,
        str(folder),
        train_dataloader=dict(
            batch_size=3,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=StackedDataset(datasets),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4, momentum=0.9)),
        custom_hooks=[
            dict(type=f'mm_rotssl.{name}')
            for name in (
                'EpochSeedHook',
                'BindDatasetHook',
                'CheckpointCheckHook',
            )
        ],
        randomness=dict(seed=3),
        default_scope='mmpretrain',
        experiment_name=f'test_bind_dataset_{next(COUNTER)}',
        log_level='ERROR',
        load_from=str(resume) if resume else None,
        resume=resume is not None,
    )
    runner.train()
    return runner.model.state_dict()


def test_a_mixture_that_is_resumed_goes_on(tmp_path):
    whole = run(tmp_path / 'whole', 2)
    checkpoint = tmp_path / 'whole' / 'epoch_1.pth'
    first = torch.load(checkpoint, weights_only=False)['state_dict']
    resumed = run(tmp_path / 'resumed', 2, checkpoint)
    assert set(resumed) == set(whole)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    for part in (
        *(f'{key}.feature_bank' for key in banks('one')[:1]),
        'tasks.clusters.queue.feats',
        'backbone.fc.weight',
    ):
        assert not torch.equal(first[part], whole[part])
    with pytest.raises(ValueError, match=r'dataset\.datasets\.one is not'):
        run(tmp_path / 'changed', 2, checkpoint, one=[*FIRST[:-1], 20])
