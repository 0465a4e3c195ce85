import itertools

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mm_rotssl.engine import SeedsCheckHook
from mm_rotssl.models import ExemplarCNN, RotNet

COUNTER = itertools.count()


class Vector(nn.Module):
    """A backbone that gives a vector."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 4, 2)

    def forward(self, x):
        return (self.fc(x.flatten(1)),)


class Plain(Dataset):
    """Pictures, and nothing said of them."""

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


def exemplar_cnn(num_seeds):
    head = dict(
        type='mm_rotssl.ExemplarHead', in_channels=2, num_seeds=num_seeds
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
    runner = build_runner(tmp_path, exemplar_cnn(4), load(Seeds(num_seeds=4)))
    before = runner.model.backbone.fc.bias.detach().clone()
    runner.train()
    assert not torch.equal(runner.model.backbone.fc.bias, before)


@pytest.mark.parametrize('seeds', [3, 5])
@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_another_number(tmp_path, seeds, wrap):
    """More classes than seeds, and fewer; the key is that of the config."""
    runner = build_runner(
        tmp_path, exemplar_cnn(4), load(Seeds(num_seeds=seeds))
    )
    runner.model = wrap(runner.model)
    message = (
        rf'has {seeds} seeds, and model\.head\.num_seeds=4\. '
        rf'Set it to {seeds}\.$'
    )
    with pytest.raises(ValueError, match=message):
        runner.train()
    # before anything is trained
    assert runner.iter == 0


def test_wrapped_model_that_fits(tmp_path):
    runner = build_runner(tmp_path, exemplar_cnn(4), load(Seeds(num_seeds=4)))
    runner.train()
    runner.model = nn.DataParallel(runner.model)
    SeedsCheckHook().before_run(runner)
    runner.model.module.head.num_seeds = 3
    with pytest.raises(ValueError, match=r'model\.head\.num_seeds=3'):
        SeedsCheckHook().before_run(runner)


@pytest.mark.parametrize('dataset', [Plain(), Seeds(classes=['a'])])
def test_data_set_without_seeds(tmp_path, dataset):
    runner = build_runner(tmp_path, exemplar_cnn(4), load(dataset))
    with pytest.raises(
        ValueError, match=r'has no seeds\. Use .*mm_rotssl\.ExemplarDataset'
    ):
        runner.train()


def test_resumed_with_other_seeds(tmp_path):
    """The same number of others stops; weights alone may be taken."""
    first = load(Seeds(num_seeds=4, fingerprint='first'))
    build_runner(tmp_path, exemplar_cnn(4), first).train()
    file = str(tmp_path / 'epoch_1.pth')
    saved = torch.load(file, weights_only=False)
    assert saved['exemplar_seeds'] == 'first'

    def go_on(dataloader, **settings):
        runner = build_runner(
            tmp_path, exemplar_cnn(4), dataloader, load_from=file, **settings
        )
        runner.train_loop._max_epochs = 2
        runner.train()
        return runner

    other = load(Seeds(num_seeds=4, fingerprint='second'))
    with pytest.raises(ValueError, match=r'first then, second now.*load_from'):
        go_on(other, resume=True)
    assert go_on(first, resume=True).epoch == 2
    go_on(other)
    # without a fingerprint there is nothing to compare
    assert go_on(load(Seeds(num_seeds=4)), resume=True).epoch == 2
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert 'exemplar_seeds' not in saved
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
        return dict(pictures=sum(results))


def test_validation_alone_needs_no_training_set(tmp_path):
    # a training set that can't be read
    absent = dict(
        dataset=dict(
            type='mm_rotssl.ExemplarDataset',
            dataset=dict(type='mm_rotssl.Digits', pipeline=[]),
            seeds=str(tmp_path / 'absent.npz'),
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
    assert runner.val() == dict(pictures=4)
    with pytest.raises(FileNotFoundError):
        runner.train()
