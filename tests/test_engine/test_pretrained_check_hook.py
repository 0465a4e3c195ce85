import itertools
import logging
import re
import shutil

import pytest
import torch
from helpers import Harmful
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.engine import PretrainedCheckHook
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import attach_facts, preprocessing_of, read_facts

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


def build_runner(tmp_path, model, new=(), preprocessing=True, **settings):
    data = DataLoader([dict(inputs=torch.rand(3)) for _ in range(4)], 2)
    return Runner(
        model,
        str(tmp_path),
        train_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[
            dict(
                type='mm_rotssl.PretrainedCheckHook',
                new=new,
                preprocessing=preprocessing,
            )
        ],
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
    with pytest.raises(
        ValueError,
        match=rf'(?s)backbone\.pth" does not have.*model\.backbone\.init_cfg '
        rf'.*\(6 tensors fit\).*{problem}',
    ) as refusal:
        runner.train()
    # that one alone, and before anything is trained
    assert str(refusal.value).count('\n') == 2
    assert runner.iter == 0


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


@pytest.mark.parametrize(
    'address', ['torchvision://some', 'https://example.org/some.pth']
)
def test_address(tmp_path, file, change, monkeypatch, address):
    """Whatever the engine can fetch is looked at, too, by our reader."""
    load = torch.load
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.get_torchvision_models',
        lambda: dict(some='https://example.org/some.pth'),
    )
    # where it has been downloaded to before
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    cached = tmp_path / 'hub/checkpoints/some.pth'
    cached.parent.mkdir(parents=True)
    shutil.copy(file, cached)
    settings = from_file(address)
    build_runner(tmp_path, Model(Backbone(settings))).train()
    change(fc_bias=None)
    shutil.copy(file, cached)
    with pytest.raises(ValueError, match=rf'{address}.*\n.*fc\.bias'):
        build_runner(tmp_path, Model(Backbone(settings))).train()
    change(meta=Harmful(tmp_path / 'harm'))
    shutil.copy(file, cached)
    with pytest.raises(ValueError, match=rf'{address}.*mkdir.*could run code'):
        build_runner(tmp_path, Model(Backbone(settings))).train()
    assert not (tmp_path / 'harm').exists()
    assert torch.load is load


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


# --- ways to hand over weights ----------------------------------------------


def test_prefix_without_a_dot(tmp_path, file):
    """Which the engine takes as well."""
    weights = torch.load(file, weights_only=True)
    torch.save({f'backbone.{k}': v for k, v in weights.items()}, file)
    settings = from_file(file, prefix='backbone')
    build_runner(tmp_path, Model(Backbone(settings))).train()
    # a part of a name is none
    settings = from_file(file, prefix='back')
    with pytest.raises(ValueError, match=r'missing: back\.fc\.weight'):
        build_runner(tmp_path, Model(Backbone(settings))).train()


def test_all_of_the_model(tmp_path):
    """By the ``init_cfg`` of the model itself."""
    torch.manual_seed(0)
    path = tmp_path / 'model.pth'
    torch.save(Model(Backbone()).state_dict(), path)
    model = Model(Backbone())
    model.init_cfg = from_file(path)
    build_runner(tmp_path, model).train()
    torch.save(Backbone().state_dict(), path)
    model = Model(Backbone())
    model.init_cfg = from_file(path)
    with pytest.raises(
        ValueError, match=r'model\.init_cfg .*\(0 tensors fit.*\n.*: backbone'
    ):
        build_runner(tmp_path, model).train()


def test_safetensors(tmp_path, file):
    library = pytest.importorskip('safetensors.torch')
    path = tmp_path / 'backbone.safetensors'
    weights = torch.load(file, weights_only=True)
    library.save_file(weights, path)
    runner = build_runner(tmp_path, Model(Backbone(from_file(path))))
    watch = Watch()
    runner.logger.addHandler(watch)
    runner.train()
    assert 'All 7 pre-trained tensors are in the model.' in watch.found
    whole = tmp_path / 'model.safetensors'
    library.save_file({f'backbone.{k}': v for k, v in weights.items()}, whole)
    build_runner(tmp_path, Model(Backbone()), load_from=str(whole)).train()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r'backbone\.safetensors" is damaged'):
        build_runner(tmp_path, Model(Backbone(from_file(path)))).train()


def test_home_folder(tmp_path, file, monkeypatch):
    """The engine knows it, too."""
    monkeypatch.setenv('HOME', str(tmp_path))
    model = Model(Backbone(from_file(f'~/{file.name}')))
    build_runner(tmp_path, model).train()


def test_load_from(tmp_path, file):
    """A file without prefix is none for the whole model."""
    runner = build_runner(tmp_path, Model(Backbone()), load_from=str(file))
    with pytest.raises(
        ValueError,
        match=r'load_from .*\(0 tensors fit\)(.*\n)+.*: backbone\.fc\.weight\n'
        r'(.*\n)+.*belong to model\.backbone\.init_cfg, not to load_from',
    ):
        runner.train()
    assert runner.iter == 0

    weights = torch.load(file, weights_only=True)
    whole = {f'backbone.{name}': v for name, v in weights.items()}
    # of the task before, and of the same name
    whole['head.weight'] = torch.ones(5, 2)
    torch.save(dict(state_dict=whole), file)
    runner = build_runner(
        tmp_path, Model(Backbone(), nn.Linear(2, 1)), load_from=str(file)
    )
    watch = Watch()
    runner.logger.addHandler(watch)
    runner.train()
    assert 'All 7 pre-trained tensors are in the model.' in watch.found
    (message,) = (m for m in watch.found if m.startswith('load_from: '))
    assert '7 tensors are from' in message
    assert message.endswith('2 are not, of head.')
    assert runner._load_from == str(file)

    del whole['backbone.bn.bias']
    torch.save(dict(state_dict=whole), file)
    with pytest.raises(ValueError, match=r'\n  missing: backbone\.bn\.bias\n'):
        build_runner(tmp_path, Model(Backbone()), load_from=str(file)).train()


class Exchanging(Backbone):
    """Meets another file than the one that was checked."""

    def init_weights(self):
        for path, content in self.exchange.items():
            torch.save(content, path)
        super().init_weights()


@pytest.mark.parametrize('way', ['init_cfg', 'load_from', 'resume'])
def test_no_file_is_read_twice(tmp_path, file, way):
    """So what was not checked cannot be loaded, nor run."""
    torch.manual_seed(5)
    if way != 'init_cfg':
        build_runner(tmp_path, Model(Backbone())).train()
    backbone = Exchanging(None if way == 'load_from' else from_file(file))
    backbone.exchange = {file: Harmful(tmp_path / 'harm')}
    settings = {}
    if way == 'load_from':
        whole = tmp_path / 'epoch_1.pth'
        settings = dict(load_from=str(whole))
        backbone.exchange = {whole: Harmful(tmp_path / 'harm')}
    elif way == 'resume':
        settings = dict(resume=True)
    runner = build_runner(tmp_path, Model(backbone), **settings)
    runner.train()
    assert not (tmp_path / 'harm').exists()
    # as it was
    if way != 'load_from':
        assert runner.model.backbone.init_cfg == from_file(file)


def test_names_that_the_module_changes(tmp_path, file):
    """Its own way of reading older files is no loss."""

    def rename(state_dict, prefix, *_):
        state_dict[f'{prefix}fc.weight'] = state_dict.pop(f'{prefix}linear')

    weights = torch.load(file, weights_only=True)
    weights['linear'] = weights.pop('fc.weight')
    torch.save(weights, file)
    backbone = Backbone(from_file(file))
    backbone._register_load_state_dict_pre_hook(rename)
    build_runner(tmp_path, Model(backbone)).train()


def test_vit_at_another_size_of_image(tmp_path):
    """It resizes its position embedding when it is loaded."""

    def build(size, init_cfg=None):
        return MODELS.build(
            dict(
                type='mmpretrain.VisionTransformer',
                arch=dict(
                    embed_dims=12,
                    num_layers=1,
                    num_heads=3,
                    feedforward_channels=24,
                ),
                img_size=size,
                patch_size=16,
                init_cfg=init_cfg,
            )
        )

    torch.save(build(32).state_dict(), tmp_path / 'vit.pth')
    model = nn.ModuleDict({'backbone': build(64, from_file('vit.pth'))})
    model.backbone = model['backbone']
    model.init_weights = model['backbone'].init_weights
    model['backbone'].init_cfg['checkpoint'] = str(tmp_path / 'vit.pth')
    PretrainedCheckHook().check(model, {})
    # and nothing else is let through
    weights = torch.load(tmp_path / 'vit.pth', weights_only=True)
    weights['pos_embed'] = torch.ones(1, 5, 11)
    torch.save(weights, tmp_path / 'vit.pth')
    other = nn.ModuleDict({'backbone': build(32, from_file('vit.pth'))})
    other['backbone'].init_cfg['checkpoint'] = str(tmp_path / 'vit.pth')
    other.init_weights = other['backbone'].init_weights
    with pytest.raises(ValueError, match='of another shape: pos_embed'):
        PretrainedCheckHook().check(other, {})


# --- what else is found -----------------------------------------------------


@pytest.mark.parametrize(
    ('value', 'kind'),
    [
        (torch.ones(2, dtype=torch.int8), r'torch\.int8, not torch\.float32'),
        (torch.ones(2, dtype=torch.complex64), r'complex64, not'),
        (torch.ones(2, dtype=torch.bool), r'bool, not'),
    ],
)
@pytest.mark.parametrize('new', [(), ['backbone.fc.']])
def test_numbers_of_another_kind(tmp_path, file, change, value, kind, new):
    """The engine would cast them."""
    change(fc_bias=value)
    with pytest.raises(
        ValueError, match=rf'of another kind: fc\.bias is .*{kind}'
    ):
        build_runner(tmp_path, Model(Backbone(from_file(file))), new).train()


def test_half_precision_is_no_other_kind(tmp_path, file, change):
    change(fc_bias=torch.ones(2, dtype=torch.float16))
    build_runner(tmp_path, Model(Backbone(from_file(file)))).train()


def test_names_what_may_be_new(tmp_path):
    """With what covers it, and nothing that has arrived."""

    def build(offsets):
        backbone = BaseModule()
        for stage in '12':
            parts = dict(conv=nn.Linear(2, 2), norm=nn.BatchNorm1d(2))
            if offsets:
                parts['offset'] = nn.Linear(2, 3)
            block = nn.ModuleDict(parts)
            backbone.add_module(f'layer{stage}', nn.Sequential(block, block))
        if offsets:
            backbone.norm0 = nn.LayerNorm(2)
        backbone.forward = lambda x: backbone.layer1[0].conv(x[:, :2])
        return backbone

    path = tmp_path / 'plain.pth'
    torch.save(build(False).state_dict(), path)

    def runner(new=()):
        backbone = build(True)
        backbone.init_cfg = from_file(path)
        return build_runner(tmp_path, Model(backbone), new)

    with pytest.raises(ValueError, match='missing') as error:
        runner().train()
    message = str(error.value)
    found = re.search(r'give the hook new=(\[.*\])\.', message)[1]
    assert eval(found) == ['backbone.*.offset.', 'backbone.norm0.']
    runner(eval(found)).train()
    # one of them alone is not enough
    for new in eval(found):
        with pytest.raises(ValueError, match='missing'):
            runner([new]).train()


def test_wrong_file_is_not_called_new(tmp_path, file):
    torch.save(dict(x=torch.ones(1)), file)
    with pytest.raises(ValueError, match='0 tensors fit') as error:
        build_runner(tmp_path, Model(Backbone(from_file(file)))).train()
    assert 'new=' not in str(error.value)


class Conv(BaseModule):
    """A part of a network with a convolution."""

    def __init__(self, name, init_cfg=None):
        super().__init__(init_cfg)
        self.name = name
        self.add_module(name, nn.Conv2d(1, 1, 1))

    def forward(self, x):
        return self.get_submodule(self.name)(x[:, None, None])[:, 0, 0]


def test_what_a_file_has_for_another_part(tmp_path):
    """A head that goes on where the backbone ends, as in C4 detectors."""
    path, other = tmp_path / 'all.pth', tmp_path / 'other.pth'
    layers = {
        f'{part}.{name}': value
        for part in ('layer3', 'layer4')
        for name, value in nn.Conv2d(1, 1, 1).state_dict().items()
    }
    torch.save(layers, path)
    torch.save(layers, other)

    def runner(init_cfg, new=()):
        head = Conv('layer4', init_cfg)
        return build_runner(
            tmp_path, Model(Conv('layer3', from_file(path)), head), new
        )

    with pytest.raises(
        ValueError,
        match=r'2 tensors for model\.head, which takes none .*init_cfg of '
        r"model\.backbone\.init_cfg, .*new=\['head\.'\]",
    ):
        runner(None).train()
    runner(None, ['head.']).train()
    started = runner(from_file(path))
    watch = Watch()
    started.logger.addHandler(watch)
    started.train()
    assert not any('different files' in message for message in watch.found)
    # supervised weights in one part of a network
    started = runner(from_file(other))
    started.logger.addHandler(watch)
    started.train()
    (message,) = (m for m in watch.found if 'different files' in m)
    assert f'model.head.init_cfg from "{other}"' in message


def bottleneck(style):
    return MODELS.build(
        dict(
            type='mmpretrain.ResNet',
            depth=50,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1,),
            base_channels=4,
            stem_channels=4,
            style=style,
        )
    )


@pytest.mark.parametrize('way', ['init_cfg', 'load_from'])
@pytest.mark.parametrize('source', ['export', 'training'])
def test_style(tmp_path, way, source):
    """All tensors fit the other one."""
    network = bottleneck('pytorch')
    prefix = 'backbone.' if (way, source) != ('init_cfg', 'export') else ''
    weights = {prefix + k: v for k, v in network.state_dict().items()}
    path = tmp_path / 'file.pth'
    if source == 'export':
        torch.save(attach_facts(weights, dict(style='pytorch')), path)
    else:
        text = "model = dict(backbone=dict(type='ResNet', depth=50))\n"
        torch.save(dict(state_dict=weights, meta=dict(cfg=text)), path)
    settings = dict(load_from=str(path)) if way == 'load_from' else {}
    for style in ('pytorch', 'caffe'):
        backbone = bottleneck(style)
        backbone.forward = lambda x, _=backbone: x * _.conv1.weight.mean()
        if way == 'init_cfg':
            backbone.init_cfg = from_file(path, prefix=prefix or None)
        runner = build_runner(tmp_path, Model(backbone), **settings)
        if style == 'pytorch':
            runner.train()
            continue
        with pytest.raises(
            ValueError,
            match=r"with style='pytorch', .*"
            rf"{way} loads it into has style='caffe'.*Give .*'pytorch'",
        ):
            runner.train()


MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CAFFE = dict(mean=MEAN[::-1], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
SAME = dict(mean=[123.68, 116.3, 103.5], std=STD, bgr_to_rgb=True)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({}, None),
        (CAFFE, r'mean=\[123.*std=.*channels=rgb there, bgr here'),
        (dict(mean=[120.0, 116.28, 103.53]), r'way: mean=\[123'),
        (dict(std=[1.0, 1.0, 1.0]), r'way: std='),
        (dict(bgr_to_rgb=False), r'way: channels=rgb there, bgr here\. Set'),
    ],
)
@pytest.mark.parametrize('source', ['export', 'training'])
def test_preprocessing(file, change, message, source):
    trained = Config(
        dict(
            model=dict(type='mm_rotssl.RotNet', backbone=dict(type='X')),
            data_preprocessor=dict(mean=MEAN, std=STD, to_rgb=True),
            train_dataloader=dict(
                dataset=dict(pipeline=[dict(type='LoadImageFromFile')])
            ),
        )
    )
    weights = torch.load(file, weights_only=True)
    if source == 'export':
        facts = preprocessing_of(trained)
        torch.save(attach_facts(weights, facts), file)
        settings = from_file(file)
    else:
        state = {f'backbone.{name}': v for name, v in weights.items()}
        meta = dict(cfg=trained.pretty_text)
        torch.save(dict(state_dict=state, meta=meta), file)
        settings = from_file(file, prefix='backbone.')
    task = Config(
        dict(
            model=dict(data_preprocessor={**SAME, **change}),
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    dataset=dict(pipeline=[dict(type='LoadImageFromFile')]),
                )
            ),
        )
    )

    def check(**options):
        model = Model(Backbone(settings))
        PretrainedCheckHook(**options).check(model, task)

    check(preprocessing=False)
    if message is None:
        check()
        return
    with pytest.raises(ValueError, match=message) as error:
        check()
    # the remedy is one
    (remedy,) = re.findall(r'Set .* to (dict\(.*?\)) \(', str(error.value))
    task.model.data_preprocessor = eval(remedy)
    check()


@pytest.mark.parametrize(
    ('settings', 'channels'),
    [
        ("dataset=dict(type='CIFAR10')", 'rgb'),
        ("dataset=dict(type='mm_rotssl.STL10')", 'rgb'),
        ("dataset=dict(type='mm_rotssl.Digits')", None),
        (
            "dataset=dict(datasets=dict(a=dict(type='X', pipeline=["
            "dict(type='mm_rotssl.LoadIntactImage')])))",
            'bgr',
        ),
    ],
)
def test_order_of_channels(settings, channels):
    """Of images that are not swapped, it is that of their source."""
    cfg = Config.fromstring(
        f"data_preprocessor=dict(type='X')\ntrain_dataloader=dict({settings})",
        '.py',
    )
    found = preprocessing_of(cfg)
    assert found.pop('channels', None) == channels
    assert found == dict(mean=[0.0], std=[1.0])


def test_a_config_is_not_run(tmp_path):
    """That of a checkpoint is text from a stranger."""
    harm = tmp_path / 'harm'
    harmful = f'__import__("os").mkdir({str(harm)!r})\nmodel = dict()\n'
    texts = ('model = 3', 'model = dict(', '(' * 500, 'x = -[]')
    for text in (harmful, *texts):
        content = dict(state_dict={}, meta=dict(cfg=text))
        assert read_facts(content) == {}
    assert not harm.exists()
