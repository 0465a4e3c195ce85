import itertools

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.evaluator import BaseMetric
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mm_rotssl.datasets import MultiTaskDataset
from mm_rotssl.engine import SeedsCheckHook
from mm_rotssl.models import ExemplarCNN, MultiTask, RotNet

COUNTER = itertools.count()


class Vector(nn.Module):
    """A backbone that gives a vector."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 4, 2)

    def forward(self, x):
        return (self.fc(x.flatten(1)),)


class Plain(Dataset):
    """Images, and nothing said of them."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        sample = DataSample()
        sample.set_field(index, 'exemplar_label')
        return dict(inputs=torch.zeros(3, 2, 2), data_samples=sample)


class Seeds(Plain):
    def __init__(self, **metainfo):
        self.metainfo = metainfo


def load(dataset):
    def collate(batch):
        return dict(
            inputs=torch.stack([entry['inputs'] for entry in batch]),
            data_samples=[entry['data_samples'] for entry in batch],
        )

    return DataLoader(dataset, 2, collate_fn=collate)


def exemplar_cnn(num_exemplars):
    head = dict(
        type='mm_rotssl.ExemplarHead',
        in_channels=2,
        num_exemplars=num_exemplars,
    )
    return ExemplarCNN(backbone=Vector(), head=head)


def build_runner(tmp_path, model, train_dataloader, **settings):
    return Runner(
        model,
        str(tmp_path),
        train_dataloader=train_dataloader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='mm_rotssl.SeedsCheckHook')],
        default_scope='mmpretrain',
        experiment_name=f'test_num_seeds_{next(COUNTER)}',
        log_level='ERROR',
        **settings,
    )


def test_what_fits_is_trained(tmp_path):
    runner = build_runner(
        tmp_path, exemplar_cnn(4), load(Seeds(num_exemplars=4))
    )
    before = runner.model.backbone.fc.bias.detach().clone()
    runner.train()
    assert not torch.equal(runner.model.backbone.fc.bias, before)


@pytest.mark.parametrize('seed_patches', [3, 5])
@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_another_number(tmp_path, seed_patches, wrap):
    """More classes than seed patches, and fewer; the key is that of the
    config."""
    runner = build_runner(
        tmp_path, exemplar_cnn(4), load(Seeds(num_exemplars=seed_patches))
    )
    runner.model = wrap(runner.model)
    message = (
        rf'has {seed_patches} seed patches, and '
        rf'model\.head\.num_exemplars=4\. Set it to {seed_patches}\.$'
    )
    with pytest.raises(ValueError, match=message):
        runner.train()
    # before anything is trained
    assert runner.iter == 0


def test_wrapped_model_that_fits(tmp_path):
    runner = build_runner(
        tmp_path, exemplar_cnn(4), load(Seeds(num_exemplars=4))
    )
    runner.train()
    runner.model = nn.DataParallel(runner.model)
    SeedsCheckHook().before_run(runner)
    runner.model.module.head.num_exemplars = 3
    with pytest.raises(ValueError, match=r'model\.head\.num_exemplars=3'):
        SeedsCheckHook().before_run(runner)


@pytest.mark.parametrize('dataset', [Plain(), Seeds(classes=['a'])])
def test_data_set_without_seeds(tmp_path, dataset):
    runner = build_runner(tmp_path, exemplar_cnn(4), load(dataset))
    with pytest.raises(
        ValueError,
        match=r'has no seed patches\. Use .*mm_rotssl\.ExemplarDataset',
    ):
        runner.train()


def test_resumed_with_other_seeds(tmp_path):
    """The same number of others stops; weights alone may be taken."""
    first = load(Seeds(num_exemplars=4, fingerprint='first'))
    build_runner(tmp_path, exemplar_cnn(4), first).train()
    file = str(tmp_path / 'epoch_1.pth')
    saved = torch.load(file, weights_only=False)
    assert saved['seed_patches'] == 'first'

    def go_on(dataloader, **settings):
        runner = build_runner(
            tmp_path, exemplar_cnn(4), dataloader, load_from=file, **settings
        )
        runner.train_loop._max_epochs = 2
        runner.train()
        return runner

    other = load(Seeds(num_exemplars=4, fingerprint='second'))
    with pytest.raises(ValueError, match=r'first then, second now.*load_from'):
        go_on(other, resume=True)
    assert go_on(first, resume=True).epoch == 2
    go_on(other)
    # without a fingerprint there is nothing to compare
    assert go_on(load(Seeds(num_exemplars=4)), resume=True).epoch == 2
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert 'seed_patches' not in saved
    torch.save(saved, file)
    assert go_on(other, resume=True).epoch == 2


def test_other_algorithms_need_no_seeds(tmp_path):
    model = RotNet(
        backbone=Vector(),
        head=dict(type='mm_rotssl.RotationHead', in_channels=2),
    )
    before = model.backbone.fc.bias.detach().clone()
    build_runner(tmp_path, model, load(Plain())).train()
    assert not torch.equal(model.backbone.fc.bias, before)


class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return dict(images=sum(results))


def test_validation_alone_needs_no_training_set(tmp_path):
    # a training set that can't be read
    absent = dict(
        dataset=dict(
            type='mm_rotssl.ExemplarDataset',
            dataset=dict(type='mm_rotssl.Digits', pipeline=[]),
            seed_patches=str(tmp_path / 'absent.npz'),
            pipeline=[],
        ),
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler'),
    )
    settings = dict(
        val_dataloader=load(Plain()),
        val_cfg={},
        val_evaluator=[Count()],
    )
    runner = build_runner(tmp_path, exemplar_cnn(5), absent, **settings)
    assert runner.val() == dict(images=4)
    with pytest.raises(FileNotFoundError):
        runner.train()


def mixture(**num_exemplars):
    """Exemplar-CNNs, and a task that has nothing to do with seed patches."""
    tasks = {
        name: dict(
            type='mm_rotssl.ExemplarCNN',
            head=dict(
                type='mm_rotssl.ExemplarHead',
                in_channels=2,
                num_exemplars=number,
            ),
        )
        for name, number in num_exemplars.items()
    }
    tasks['rotation'] = dict(
        type='mm_rotssl.RotNet',
        head=dict(type='mm_rotssl.RotationHead', in_channels=2),
    )
    init_default_scope('mmpretrain')
    return MultiTask(backbone=Vector(), tasks=tasks)


def streams(**datasets):
    dataset = MultiTaskDataset(dict(datasets, rotation=Plain()))
    return DataLoader(dataset, 2, collate_fn=default_collate)


@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_tasks_are_compared_with_their_own_streams(tmp_path, wrap):
    def check(numbers, **datasets):
        model = mixture(**dict(zip(('one', 'one_more'), numbers, strict=True)))
        runner = build_runner(tmp_path, model, streams(**datasets))
        runner.train_loop  # noqa: B018
        runner.model = wrap(runner.model)
        SeedsCheckHook().before_run(runner)

    four, five = Seeds(num_exemplars=4), Seeds(num_exemplars=5)
    check((4, 5), one=four, one_more=five)
    # in whatever order
    check((4, 5), one_more=five, one=four)
    place = r'^train_dataloader\.dataset\.datasets'
    for numbers, name, seed_patches, number in (
        ((5, 5), 'one', 4, 5),
        ((4, 4), 'one_more', 5, 4),
        ((5, 4), 'one', 4, 5),
    ):
        with pytest.raises(
            ValueError,
            match=rf'{place}\.{name} has {seed_patches} seed patches, and '
            rf'model\.tasks\.{name}\.head\.num_exemplars={number}\. Set it to '
            rf'{seed_patches}\.$',
        ):
            check(numbers, one=four, one_more=five)
    with pytest.raises(
        ValueError,
        match=rf'{place}\.one_more has no seed patches\. Use .*Exemplar',
    ):
        check((4, 5), one=four, one_more=Plain())


def test_tasks_resumed_with_other_seeds(tmp_path):
    def seed_patches(one, more):
        return streams(
            one=Seeds(num_exemplars=4, fingerprint=one),
            one_more=Seeds(num_exemplars=5, fingerprint=more),
        )

    def go_on(dataloader, epochs=2, **settings):
        model = mixture(one=4, one_more=5)
        runner = build_runner(tmp_path, model, dataloader, **settings)
        runner.train_loop._max_epochs = epochs
        runner.train()
        return runner

    before = go_on(seed_patches('first', 'second'), epochs=1).iter
    assert before == 2
    resume = dict(load_from=str(tmp_path / 'epoch_1.pth'), resume=True)
    assert go_on(seed_patches('first', 'second'), **resume).iter == 4
    for one, more, name, was in (
        ('third', 'second', 'one', 'first'),
        ('first', 'third', 'one_more', 'second'),
    ):
        with pytest.raises(
            ValueError,
            match=rf'{was} then, third now.*train_dataloader\.dataset\.'
            rf'datasets\.{name}\.seed patches.*load_from',
        ):
            go_on(seed_patches(one, more), **resume)
    # weights alone
    go_on(seed_patches('second', 'first'), load_from=resume['load_from'])
