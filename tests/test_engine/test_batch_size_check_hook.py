"""Batches that a loss over the batch can't be trained with."""

import itertools
import logging

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

COUNTER = itertools.count()


class Numbers(Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.tensor([float(index)])


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)
        self.sizes = []

    def forward(self, inputs, mode='tensor'):
        self.sizes.append(len(inputs))
        loss = self.fc(inputs).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


class Steps(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(batches=len(results))


def collate(batch):
    return dict(inputs=torch.stack(batch))


def load(count, size=4, **settings):
    return DataLoader(Numbers(count), size, collate_fn=collate, **settings)


def build_runner(tmp_path, loader, **settings):
    return Runner(
        **{
            'model': Model(),
            'work_dir': str(tmp_path),
            'train_dataloader': loader,
            'train_cfg': dict(by_epoch=False, max_iters=6),
            'optim_wrapper': dict(optimizer=dict(type='SGD', lr=1e-4)),
            'custom_hooks': [dict(type='mm_rotssl.BatchSizeCheckHook')],
            'default_scope': 'mmpretrain',
            'experiment_name': f'test_batch_loss_{next(COUNTER)}',
            'log_level': 'ERROR',
            **settings,
        }
    )


def message(images, size, rest):
    return (
        rf'^{images} images a process and train_dataloader\.batch_size='
        rf'{size} leave a last batch of {rest},.*'
        r'Set train_dataloader\.drop_last=True\.$'
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A runner whose batches fit."""
    runner = build_runner(tmp_path_factory.mktemp('batches'), load(8))
    runner.train()
    assert runner.model.sizes == [4] * 6
    return runner


def ask(runner, loader):
    runner.train_loop.dataloader = loader
    runner.call_hook('before_run')


@pytest.mark.parametrize('by_epoch', [True, False])
def test_nothing_is_trained(tmp_path, by_epoch):
    train_cfg = (
        dict(by_epoch=True, max_epochs=1)
        if by_epoch
        else dict(by_epoch=False, max_iters=2)
    )
    runner = build_runner(tmp_path, load(10), train_cfg=train_cfg)
    with pytest.raises(ValueError, match=message(10, 4, 2)):
        runner.train()
    assert runner.model.sizes == []


@pytest.mark.parametrize(
    ('count', 'size'),
    [
        *[(1, 1), (5, 1)],
        *[(1, 4), (3, 4), (4, 4), (5, 4), (7, 4), (12, 4)],
        *[(8, 6), (13, 6)],
    ],
)
def test_smaller_last_batch(trained, count, size):
    *_, last = iter(load(count, size))
    last = len(last['inputs'])
    if last == size:
        ask(trained, load(count, size))
    else:
        with pytest.raises(ValueError, match=message(count, size, last)):
            ask(trained, load(count, size))
    ask(trained, load(count, size, drop_last=True))


class Process(DefaultSampler):
    """The sampler of one of three processes."""

    def __init__(self, dataset):
        super().__init__(dataset)
        self.world_size = 3
        self.num_samples = -(-len(dataset) // 3)
        self.total_size = 3 * self.num_samples


def test_images_are_those_of_a_process(trained):
    """Twelve are three batches of four, but of a process only one."""
    for count, size, rest in (
        (12, 4, 0),
        (10, 4, 0),
        (12, 3, 1),
        (12, 6, 4),
        (8, 4, 3),
    ):
        sampler = Process(Numbers(count))
        loader = load(count, size, sampler=sampler)
        if rest:
            images = len(list(sampler))
            with pytest.raises(ValueError, match=message(images, size, rest)):
                ask(trained, loader)
        else:
            ask(trained, loader)


def test_endless_sampler(trained):
    sampler = InfiniteSampler(Numbers(10))
    loader = load(10, sampler=sampler)
    batches = itertools.islice(loader, 12)
    assert {len(batch['inputs']) for batch in batches} == {4}
    ask(trained, loader)


@pytest.mark.parametrize('counts', [1, 2, 5])
def test_added_up_gradients(trained, monkeypatch, counts):
    monkeypatch.setattr(trained.optim_wrapper, '_accumulative_counts', counts)
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handlers', [handler])
    monkeypatch.setattr(logger, 'level', logging.WARNING)
    # what a logger is enabled for is remembered
    logger._cache.clear()
    ask(trained, load(8))
    texts = [record.getMessage() for record in records]
    assert len(texts) == (counts > 1)
    for text in texts:
        assert f'optim_wrapper.accumulative_counts={counts} ' in text
        assert f'of {counts} batches' in text
        assert 'stays at 4 images a process' in text


def test_validation_alone_needs_no_training_set(tmp_path):
    absent = dict(
        dataset=dict(type='no such dataset'),
        batch_size=2,
        sampler=dict(type='DefaultSampler'),
    )
    runner = build_runner(
        tmp_path,
        absent,
        # its last batch is smaller, which does no harm
        val_dataloader=load(10),
        val_cfg={},
        val_evaluator=[Steps()],
        test_dataloader=load(9),
        test_cfg={},
        test_evaluator=[Steps()],
    )
    assert runner.val() == dict(batches=3)
    assert runner.test() == dict(batches=3)
    with pytest.raises(KeyError, match='no such dataset'):
        runner.train()
