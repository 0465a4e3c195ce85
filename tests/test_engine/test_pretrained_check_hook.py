import itertools
import logging

import pytest
import torch
from helpers import Harmful
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.engine import PretrainedCheckHook

COUNTER = itertools.count()


class Backbone(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.fc = nn.Linear(3, 2)
        self.bn = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.bn(self.fc(x))


class Stubborn(Backbone):
    """Starts again from its own weights after everything else."""

    def init_weights(self):
        super().init_weights()
        nn.init.constant_(self.fc.weight, 7.0)


class Model(BaseModel):
    def __init__(self, backbone, head=None):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, inputs, mode='tensor'):
        feats = self.backbone(inputs)
        if self.head is not None:
            feats = self.head(feats)
        return dict(loss=feats.square().mean())


def build_runner(tmp_path, model, new=(), **settings):
    data = DataLoader([dict(inputs=torch.rand(3)) for _ in range(4)], 2)
    return Runner(
        model,
        str(tmp_path),
        train_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='mm_rotssl.PretrainedCheckHook', new=new)],
        default_scope='mmpretrain',
        experiment_name=f'test_pretrained_{next(COUNTER)}',
        **settings,
    )


def from_file(path, **settings):
    return dict(type='Pretrained', checkpoint=str(path), **settings)


@pytest.fixture
def file(tmp_path):
    """Weights of a backbone, as they are exported: without a prefix."""
    torch.manual_seed(0)
    path = tmp_path / 'backbone.pth'
    torch.save(Backbone().state_dict(), path)
    return path


@pytest.fixture
def change(file):
    def change(**tensors):
        weights = torch.load(file, weights_only=True)
        for name, value in tensors.items():
            name = name.replace('_', '.', 1)
            if value is None:
                del weights[name]
            else:
                weights[name] = value
        torch.save(weights, file)

    return change


class Watch(logging.Handler):
    def __init__(self):
        super().__init__()
        self.found = []

    def emit(self, record):
        self.found.append(record.getMessage())


def test_what_arrives_is_trained(tmp_path, file):
    runner = build_runner(tmp_path, Model(Backbone(from_file(file))))
    watch = Watch()
    runner.logger.addHandler(watch)
    runner.train()
    assert runner.iter == 2
    # weight and bias, of the normalization with mean, variance and count
    assert 'All 7 pre-trained tensors are in the model.' in watch.found


@pytest.mark.parametrize(
    ('name', 'value', 'problem'),
    [
        ('fc_weight', None, r'missing: fc\.weight\n'),
        ('bn_running_var', None, r'missing: bn\.running_var\n'),
        (
            *('fc_weight', torch.ones(2, 4)),
            r'of another shape: fc\.weight is \(2, 4\), not \(2, 3\)\n',
        ),
        (
            *('bn_bias', torch.tensor([0.0, float('nan')])),
            r'not finite: bn\.bias\n',
        ),
        (
            *('fc_bias', torch.tensor([float('inf'), 0.0])),
            r'not finite: fc\.bias\n',
        ),
    ],
)
def test_refuses_by_name(tmp_path, file, change, name, value, problem):
    change(**{name: value})
    runner = build_runner(tmp_path, Model(Backbone(from_file(file))))
    before = runner.model.backbone.fc.weight.detach().clone()
    with pytest.raises(
        ValueError,
        match=rf'(?s)backbone\.pth" does not have.*model\.backbone\.init_cfg '
        rf'.*\(6 tensors fit\).*{problem}',
    ) as refusal:
        runner.train()
    # that one alone, and before anything is loaded
    assert str(refusal.value).count('\n') == 2
    assert torch.equal(runner.model.backbone.fc.weight, before)


def test_count_of_batches_may_be_missing(tmp_path, file, change):
    change(bn_num_batches_tracked=None)
    build_runner(tmp_path, Model(Backbone(from_file(file)))).train()


@pytest.mark.parametrize('wrapper', ['', 'module.'])
def test_training_checkpoint(tmp_path, file, wrapper):
    weights = {
        f'{wrapper}backbone.{name}': value
        for name, value in torch.load(file, weights_only=True).items()
    }
    weights[f'{wrapper}head.fc.weight'] = torch.ones(1)
    torch.save(dict(state_dict=weights), file)
    if not wrapper:
        settings = from_file(file, prefix='backbone.')
        build_runner(tmp_path, Model(Backbone(settings))).train()
    # of which no name fits without
    with pytest.raises(
        ValueError, match=r'missing: fc\.weight\n(.*\n)+.*pref'
    ):
        build_runner(tmp_path, Model(Backbone(from_file(file)))).train()


def test_prefix_on_a_stripped_file(tmp_path, file):
    """Of which the engine says nothing but that an assertion failed."""
    settings = from_file(file, prefix='backbone.')
    with pytest.raises(
        ValueError, match=r'missing: backbone\.fc\.weight\n(.*\n)+.*fc\.weight'
    ):
        build_runner(tmp_path, Model(Backbone(settings))).train()


def test_second_module_and_list(tmp_path, file, change):
    """Both are looked at, and a file may hold the tensors of both."""
    weights = torch.load(file, weights_only=True)
    head = nn.Linear(2, 1).state_dict()
    torch.save({**weights, **{f'1.{k}': v for k, v in head.items()}}, file)

    def build():
        head = BaseModule(
            [dict(type='Constant', layer='Linear', val=0), from_file(file)]
        )
        head.add_module('1', nn.Linear(2, 1))
        head.forward = head.get_submodule('1').forward
        return Model(Backbone(from_file(file)), head)

    runner = build_runner(tmp_path, build())
    watch = Watch()
    runner.logger.addHandler(watch)
    runner.train()
    assert 'All 9 pre-trained tensors are in the model.' in watch.found

    change(**{'1_bias': None})
    with pytest.raises(ValueError, match=r'model\.head\.init_cfg.*\n.*: 1\.b'):
        build_runner(tmp_path, build()).train()
    # new tensors of one module are not those of another
    change(fc_bias=None)
    for new in ('head.1.bias', 'backbone.fc.'):
        with pytest.raises(ValueError, match='missing'):
            build_runner(tmp_path, build(), [new]).train()
    build_runner(tmp_path, build(), ['head.1.bias', 'backbone.fc.']).train()


def test_new_tensors_that_are_there(tmp_path, file, change):
    """They are loaded, so they must fit."""
    change(fc_bias=torch.tensor([0.0, float('nan')]))
    model = Model(Backbone(from_file(file)))
    with pytest.raises(ValueError, match=r'not finite: fc\.bias'):
        build_runner(tmp_path, model, ['backbone.fc.']).train()


def test_overwritten_afterwards(tmp_path, file):
    runner = build_runner(tmp_path, Model(Stubborn(from_file(file))))
    with pytest.raises(
        RuntimeError, match=r'^1 of 7 .*\n  backbone\.fc\.weight$'
    ):
        runner.train()
    assert runner.iter == 0


def test_runs_no_code_of_a_file(tmp_path, file, change):
    change(meta=Harmful(tmp_path / 'harm'))
    with pytest.raises(ValueError, match=r'mkdir.*could run code'):
        build_runner(tmp_path, Model(Backbone(from_file(file)))).train()
    assert not (tmp_path / 'harm').exists()


def test_missing_file(tmp_path):
    model = Model(Backbone(from_file(tmp_path / 'none.pth')))
    with pytest.raises(FileNotFoundError, match=r'none\.pth" does not exist'):
        build_runner(tmp_path, model).train()


def test_address(tmp_path, file, monkeypatch):
    """Whatever the engine can fetch is looked at, too."""
    weights = torch.load(file, weights_only=True)
    known = {'torchvision://some': weights}
    monkeypatch.setattr(
        CheckpointLoader,
        'load_checkpoint',
        lambda address, *_, **__: known[address],
    )
    settings = from_file('torchvision://some')
    build_runner(tmp_path, Model(Backbone(settings))).train()
    del weights['fc.bias']
    with pytest.raises(ValueError, match=r'torchvision://some.*\n.*fc\.bias'):
        build_runner(tmp_path, Model(Backbone(settings))).train()


def test_no_file(tmp_path):
    hook = PretrainedCheckHook()
    runner = build_runner(tmp_path, Model(Backbone()))
    runner.register_hook(hook)
    watch = Watch()
    runner.logger.addHandler(watch)
    runner.train()
    assert not any('pre-trained' in message for message in watch.found)


@pytest.mark.parametrize('resume', [False, True])
def test_a_run_that_goes_on(tmp_path, file, change, resume):
    """Its weights are those of its checkpoint."""
    build_runner(tmp_path, Model(Backbone(from_file(file)))).train()
    change(fc_bias=torch.full((2,), float('nan')))
    runner = build_runner(
        *(tmp_path, Model(Backbone(from_file(file)))),
        load_from=str(tmp_path / 'epoch_1.pth'),
        resume=resume,
    )
    runner.train_loop._max_epochs = 2
    runner.train()
    assert runner.iter == 4


def test_automatic_resume(tmp_path, file, change):
    """Without a checkpoint a run begins, with one it goes on."""
    change(fc_bias=None)
    with pytest.raises(ValueError, match=r'fc\.bias'):
        build_runner(
            tmp_path, Model(Backbone(from_file(file))), resume=True
        ).train()
    build_runner(tmp_path, Model(Backbone())).train()
    build_runner(
        tmp_path, Model(Backbone(from_file(file))), resume=True
    ).train()


def test_validation_alone_reads_no_file(tmp_path):
    model = Model(Backbone(from_file(tmp_path / 'none.pth')))
    runner = build_runner(tmp_path, model)
    PretrainedCheckHook().before_run(runner)
