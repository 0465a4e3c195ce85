import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmengine.runner import BaseLoop, Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import Subset

from mm_rotssl.datasets import Digits, ExemplarDataset, StackedDataset
from mm_rotssl.engine.hooks.training_datasets import training_datasets
from mm_rotssl.models import ExemplarCNN

COUNTER = itertools.count()


class Numbers:
    """Entries are their own numbers."""

    def __init__(self, length, **metainfo):
        self.length = length
        self.metainfo = metainfo
        self.initialized = 0

    def full_init(self):
        self.initialized += 1

    def __len__(self):
        return self.length

    def __getitem__(self, idx):
        assert 0 <= idx < self.length
        return idx


@pytest.mark.parametrize('lengths', [(7, 3), (3, 7), (5, 5), (12, 4, 1, 7)])
def test_all_of_a_stream_equally_often(lengths):
    datasets = {f's{i}': Numbers(length) for i, length in enumerate(lengths)}
    dataset = StackedDataset(datasets)
    assert len(dataset) == max(lengths)
    entries = [dataset[i] for i in range(len(dataset))]
    for number, (name, length) in enumerate(
        zip(datasets, lengths, strict=True)
    ):
        numbers = [entry[name] for entry in entries]
        times = Counter(numbers)
        assert sorted(times) == list(range(length))
        assert max(times.values()) - min(times.values()) <= 1
        shift = int(number * length / len(lengths))
        assert numbers == [(i + shift) % length for i in range(len(dataset))]
    # and the same again: there is no state
    assert entries == [dataset[i] for i in range(len(dataset))]


def test_the_same_images_twice_are_not_in_the_same_entry():
    digits = dict(type='mm_rotssl.Digits', pipeline=[], indices=20)
    dataset = StackedDataset(dict(one=digits, two=digits, three=digits))
    for i in range(20):
        entry = dataset[i]
        assert len({part['sample_idx'] for part in entry.values()}) == 3


@pytest.mark.parametrize('idx', [-1, 4, 100])
def test_no_such_entry(idx):
    with pytest.raises(
        IndexError, match=rf'Entry {idx} of 4 of StackedDataset'
    ):
        StackedDataset(dict(a=Numbers(4), b=Numbers(2)))[idx]


def test_datasets_are_prepared_once():
    datasets = dict(a=Numbers(4), b=Numbers(2))
    dataset = StackedDataset(datasets)
    assert datasets['a'].initialized == 0
    for _ in range(2):
        dataset.full_init()
        assert len(list(dataset)) == 4
    assert [dataset.initialized for dataset in datasets.values()] == [1, 1]


def test_batches_have_the_form_of_the_datasets():
    """Of tensors, of views, with the data samples of each dataset."""
    init_default_scope('mmpretrain')
    pack = dict(type='PackInputs')
    view = dict(type='mm_rotssl.RandomResizedCropFlip', scale=16)
    views = dict(type='MultiView', num_views=[2], transforms=[[view]])
    digits = dict(type='mm_rotssl.Digits')
    dataset = StackedDataset(
        dict(
            plain=dict(digits, pipeline=[pack], indices=6),
            views=dict(digits, pipeline=[views, pack], indices=4),
        )
    )
    batch = default_collate([dataset[i] for i in (5, 1, 3)])
    assert list(batch) == ['plain', 'views']
    raw = Digits(pipeline=[])
    want = np.stack([raw[i]['img'] for i in (5, 1, 3)])
    plain = batch['plain']
    assert plain['inputs'].dtype == torch.uint8
    np.testing.assert_array_equal(
        plain['inputs'].numpy(), want.transpose(0, 3, 1, 2)
    )
    assert [s.sample_idx for s in plain['data_samples']] == [5, 1, 3]
    assert [tuple(v.shape) for v in batch['views']['inputs']] == [
        (3, 3, 16, 16)
    ] * 2
    samples = batch['views']['data_samples']
    assert all(isinstance(sample, DataSample) for sample in samples)
    # (i + 4 // 2) % 4
    assert [sample.sample_idx for sample in samples] == [3, 3, 1]


def test_metainfo():
    dataset = StackedDataset(
        dict(
            a=Numbers(2, classes='xy', num_exemplars=3),
            b=Numbers(2, classes='z'),
            c=[1, 2],
        )
    )
    assert dataset.metainfo == dict(
        a=dict(classes='xy', num_exemplars=3),
        b=dict(classes='z'),
        c={},
    )


class Loop(BaseLoop):
    def run(self):
        pass


def runner_of(dataset, model):
    return SimpleNamespace(
        _train_loop=Loop.__new__(Loop),
        train_dataloader=SimpleNamespace(dataset=dataset),
        model=model,
    )


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.tasks = nn.ModuleDict(
            dict(
                a=nn.Sequential(nn.ReLU()),
                ab=nn.Identity(),
                # a part may be called as a task is
                b=nn.ModuleDict(dict(a=nn.Tanh())),
            )
        )


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
@pytest.mark.parametrize(
    'around',
    [
        lambda dataset: dataset,
        lambda dataset: Subset(Subset(dataset, range(2)), range(1)),
    ],
)
def test_training_datasets(wrap, around):
    model = Mixture()
    datasets = dict(b=Numbers(2), a=Numbers(3), ab=Numbers(3))
    runner = runner_of(around(StackedDataset(datasets)), wrap(model))
    a, b = model.tasks['a'], model.tasks['b']
    assert list(training_datasets(runner)) == [
        ('.datasets.b', datasets['b'], {'tasks.b': b, 'tasks.b.a': b['a']}),
        ('.datasets.a', datasets['a'], {'tasks.a': a, 'tasks.a.0': a[0]}),
        ('.datasets.ab', datasets['ab'], {'tasks.ab': model.tasks['ab']}),
    ]
    # another dataset belongs to all of the model
    plain = around(Numbers(3))
    ((place, dataset, modules),) = training_datasets(
        runner_of(plain, wrap(model))
    )
    assert (place, modules) == ('', dict(model.named_modules()))
    assert dataset is plain


def test_datasets_without_a_loop_of_training():
    runner = SimpleNamespace(_train_loop=dict(type='EpochBasedTrainLoop'))
    assert not list(training_datasets(runner))


class Vector(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 2)

    def forward(self, x):
        return (self.fc(x.flatten(1)),)


@pytest.mark.parametrize('num_exemplars', [4, 5])
def test_seeds_are_checked(tmp_path, num_exemplars):
    init_default_scope('mmpretrain')
    transforms = [
        dict(type='mm_rotssl.RandomDeformation'),
        dict(type='PackInputs', algorithm_keys=('exemplar_label',)),
    ]
    seeds = ExemplarDataset(
        dict(type='mm_rotssl.Digits', size=48, indices=4),
        dict(num_exemplars=4, scales=(1.0,)),
        transforms,
        num_deformations=1,
    )
    head = dict(
        type='mm_rotssl.ExemplarHead',
        in_channels=2,
        num_exemplars=num_exemplars,
    )

    def build_runner(**settings):
        return Runner(
            dict(
                type='mm_rotssl.MultiTask',
                backbone=Vector(),
                tasks=dict(exemplar=dict(type=ExemplarCNN, head=head)),
            ),
            str(tmp_path),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
                dataset=StackedDataset(dict(exemplar=seeds)),
            ),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[dict(type='mm_rotssl.BindDatasetHook')],
            default_scope='mmpretrain',
            experiment_name=f'test_multi_task_dataset_{next(COUNTER)}',
            log_level='ERROR',
            **settings,
        )

    runner = build_runner(train_cfg=dict(by_epoch=True, max_epochs=1))
    if num_exemplars == 5:
        with pytest.raises(
            ValueError,
            match=r'\.datasets\.exemplar: 4 samples.*num_exemplars=5',
        ):
            runner.train()
        return
    runner.train()
    # and other seeds, when it is resumed
    assert runner.iter == 2
    seeds.seed_patches.centers[0] += 1
    again = build_runner(
        train_cfg=dict(by_epoch=True, max_epochs=2),
        load_from=str(tmp_path / 'epoch_1.pth'),
        resume=True,
    )
    with pytest.raises(
        ValueError,
        match=r'\.datasets\.exemplar is not the training set of the ch',
    ):
        again.train()


@pytest.mark.parametrize(
    ('datasets', 'message'),
    [
        ({}, 'names no dataset'),
        (dict(inputs=[1]), 'named "inputs"'),
        (dict(a=[1], data_samples=[1]), 'named "data_samples"'),
        (
            dict(a=[1], b=[]),
            r'datasets\.b of StackedDataset, a list, is empty',
        ),
    ],
)
def test_errors(datasets, message):
    with pytest.raises(ValueError, match=message):
        len(StackedDataset(datasets))
