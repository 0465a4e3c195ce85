"""Every config is built by the runner, and trains a step."""

import copy
import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from mm_rotssl.apis import set_epochs
from mm_rotssl.datasets import Neighbors, image_keys
from mm_rotssl.registry import DATASETS as REGISTERED
from mm_rotssl.registry import MODELS

pytest_plugins = ['stand_ins']

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
    # what is trained there is of other libraries: test_transfer_configs.py
    and ROOT / 'configs/transfer' not in path.parents
)
# Trained through the command line: test_custom_configs.py.
CUSTOM = [path for path in CONFIGS if path.stem.endswith('_custom')]
# Not to be changed: the tests share what it returns.
read_only = functools.cache(Config.fromfile)

BATCH_SIZE = 2
# Datasets of which a batch is enough.
DATASETS = (
    *('mm_rotssl.Digits', 'mm_rotssl.ImageFolder', 'mm_rotssl.STL10'),
    *('CIFAR10', 'ImageNet', 'Places205'),
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def nodes(node):
    """Every dict of a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from nodes(child)


def narrow(model):
    """Make wide networks an eighth as wide, and what reads their features."""
    algorithm = model.get('algorithm', model)
    backbone = algorithm.backbone
    if backbone.type in ('ResNet', 'ResNet_CIFAR'):
        backbone.update(base_channels=8, stem_channels=8)
    elif backbone.type == 'mm_rotssl.ExemplarNet':
        backbone.arch = re.sub(
            r'\d+(?=[cf])', lambda n: str(int(n[0]) // 8), backbone.arch
        )
    else:
        return
    neck = algorithm.get('neck') or {}
    readers = [neck if 'in_channels' in neck else algorithm.head]
    if algorithm is not model:
        readers.append(model.head)
    for reader in readers:
        widths = np.array(reader.in_channels)
        # a width that does not fit still does not
        assert not (widths % 8).any()
        reader.in_channels = (widths // 8).tolist()


def shrink(cfg):
    """Make a run short and its network small, of the same kind and wiring."""
    if 'tasks' not in cfg.model:
        narrow(cfg.model)
    backbone = cfg.model.get('algorithm', cfg.model).backbone
    if 'init_cfg' in backbone and 'checkpoint' in backbone.init_cfg:
        backbone.init_cfg.checkpoint = 'work_dirs/rotnet.pth'
    for node in nodes(cfg._cfg_dict):
        if 'indices' in node or node.get('type') in DATASETS:
            node['indices'] = list(range(BATCH_SIZE))
        if 'num_exemplars' in node:
            node['num_exemplars'] = BATCH_SIZE
        if node.get('type') == 'mm_rotssl.PseudoLabelHead':
            # no more clusters than images
            count = node['num_classes']
            heads = 1 if isinstance(count, int) else len(count)
            node['num_classes'] = [BATCH_SIZE] * heads
        if node.get('type') == 'mm_rotssl.KMeansLabeler':
            node.pop('channels', None)
        if 'num_deformations' in node:
            node['num_deformations'] = 1
        if 'batch_size' in node:
            node.update(batch_size=BATCH_SIZE, num_workers=0)
    pairs = cfg.train_dataloader.dataset
    if pairs.get('type') == 'mm_rotssl.NeighborPairs':
        # of what is left of the images
        init_default_scope('mmpretrain')
        keys = image_keys(REGISTERED.build(pairs.dataset.to_dict()))
        pairs.neighbors = 'work_dirs/neighbors.npz'
        Neighbors(keys, np.array([[1], [0]])).save(pairs.neighbors)
    if cfg.model.type == 'mm_rotssl.SelfLabel':
        # or nothing would be learned
        cfg.model.threshold = 0.0
    if 'work_dirs' in (cfg.load_from or ''):
        # of another run
        cfg.load_from = None
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
        # half precision needs a GPU
        cfg.optim_wrapper.type = 'OptimWrapper'
    # two images a step bear no more
    optimizer = cfg.optim_wrapper.optimizer
    optimizer.lr = min(optimizer.lr, 0.001)
    set_epochs(cfg, 1)
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)


class Witness(Hook):
    """Note what is trained on, and with what success."""

    def __init__(self):
        self.types, self.losses, self.metrics = set(), [], None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        # one, or one a task
        single = 'inputs' in data_batch
        for part in [data_batch] if single else data_batch.values():
            inputs = part['inputs']
            views = inputs if isinstance(inputs, list) else [inputs]
            self.types |= {view.dtype for view in views}

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.losses.append(outputs['loss'])

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


@pytest.mark.parametrize(
    'path',
    [path for path in CONFIGS if path not in CUSTOM],
    ids=lambda path: path.stem,
)
@pytest.mark.usefixtures('in_stand_ins', 'quick_runner')
def test_config(path, tmp_path):
    cfg = copy.deepcopy(read_only(path))
    shrink(cfg)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = path.stem
    cfg.randomness.seed = 0
    runner = Runner.from_cfg(cfg)
    witness = Witness()
    runner.register_hook(witness)
    model = runner.model
    before = {k: v.clone() for k, v in model.named_parameters()}
    runner.train()
    assert witness.types == {torch.uint8}
    assert witness.losses
    assert all(loss.isfinite() for loss in witness.losses)
    changed = {
        name
        for name, value in model.named_parameters()
        if value.requires_grad and not torch.equal(value, before[name])
    }
    assert any('backbone' in name for name in changed) or 'probes' in str(path)
    assert changed
    assert bool(witness.metrics) == bool(cfg.get('val_evaluator'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_testing_is_validation(path):
    """A key that only one of them has would be forgotten by the other."""
    cfg = read_only(path)
    if path in CUSTOM:
        # how images are prepared, for tools that look nowhere else
        assert cfg.test_dataloader.dataset.pipeline
        assert (cfg.test_cfg, cfg.test_evaluator) == ({}, [])
        return
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.test_evaluator == cfg.val_evaluator
    loop = dict(cfg.val_cfg)
    if 'type' in loop:
        loop['type'] = loop['type'].replace('Val', 'Test')
    assert cfg.test_cfg == loop


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_batch_size_of_the_name(path):
    cfg = read_only(path)
    devices, batch = map(int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups())
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == devices * batch
    epochs = int(re.search(r'-(\d+)e_', path.stem).group(1))
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.train_dataloader.persistent_workers is False


@pytest.mark.parametrize(
    'path',
    [
        path
        for path in CONFIGS
        # the authors' recipe is none of the pairs
        if path.parent.name == 'essl' and '-warmup-' not in path.stem
    ],
    ids=lambda path: path.stem,
)
def test_essl_adds_nothing_but_rotations(path):
    (plain,) = (
        other
        for other in CONFIGS
        if other.stem == path.stem.removeprefix('essl-')
    )
    without, cfg = (
        copy.deepcopy(read_only(file))._cfg_dict for file in (plain, path)
    )
    model = cfg.pop('model')
    assert model.type == 'mm_rotssl.ESSL'
    assert model.algorithm == without.pop('model')
    # one more view, of the same kind, at the end
    before, after = (
        next(step for step in pipeline if step.type == 'MultiView')
        for pipeline in (
            one.train_dataloader.dataset.pop('pipeline')
            for one in (without, cfg)
        )
    )
    assert sum(after.num_views) == sum(before.num_views) + 1
    assert after.transforms[: len(before.transforms)] == before.transforms
    kinds = [[step.type for step in view] for view in after.transforms]
    assert kinds.count(kinds[0]) == len(kinds)
    if 'val_evaluator' in without:
        for part in ('val_evaluator', 'test_evaluator'):
            assert cfg.pop(part) == [
                *without.pop(part),
                dict(type='mm_rotssl.RotationAccuracy'),
            ]
    # what a config adds for its own use the runner does not read
    assert {key: cfg[key] for key in without} == without


def learning_rates(name):
    """The rate of each epoch, by the engine's own schedulers."""
    cfg = read_only(ROOT / 'configs' / name)
    init_default_scope('mmpretrain')
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    settings = cfg.param_scheduler
    schedulers = [
        PARAM_SCHEDULERS.build(
            # here a step is an epoch
            dict(end=cfg.train_cfg.max_epochs)
            | dict(one, optimizer=optimizer, convert_to_iter_based=False)
        )
        for one in (settings if isinstance(settings, list) else [settings])
    ]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ('name', 'table'),
    [
        (
            'rotnet/rotnet_nin_1xb128-steplr-200e_cifar10.py',
            [(60, 0.1), (120, 0.02), (160, 0.004), (200, 0.0008)],
        ),
        (
            'rotnet/rotnet_alexnet-bn_1xb192-steplr-50e_in1k.py',
            [(15, 0.01), (30, 0.001), (45, 1e-4), (50, 1e-5)],
        ),
        (
            'rotnet/probes/nin-stage2-nonlinear_1xb128-steplr-100e_cifar10.py',
            [(20, 0.1), (40, 0.02), (45, 0.004), (100, 0.0008)],
        ),
        (
            'rotnet/probes/nin-stage2-conv_1xb128-steplr-100e_cifar10.py',
            [(35, 0.1), (70, 0.02), (85, 0.004), (100, 0.0008)],
        ),
        (
            'rotnet/probes/alexnet-bn-linear_1xb192-steplr-35e_in1k.py',
            [(5, 0.01), (15, 0.002), (25, 4e-4), (35, 8e-5)],
        ),
        (
            'rotnet/probes/alexnet-bn-linear_1xb192-steplr-35e_places205.py',
            [(5, 0.01), (15, 0.002), (25, 4e-4), (35, 8e-5)],
        ),
        (
            'exemplar_cnn/exemplar-cnn_64c5-128c5-256c5-512f_1xb128-steplr-'
            '156e_stl10.py',
            # in steps 1.2 million, then 120,000, 120,000, 60,000, 60,000
            [
                (120, 0.01),
                (132, 0.004),
                (144, 0.001),
                (150, 4e-4),
                (156, 1e-4),
            ],
        ),
        (
            'feature_decoupling/'
            'feature-decoupling_alexnet-bn_1xb192-steplr-245e_in1k.py',
            [
                (90, 0.01),
                (130, 0.001),
                (190, 1e-4),
                (210, 1e-5),
                # with the noise weights the rate begins again
                (230, 1e-4),
                (245, 1e-5),
            ],
        ),
        (
            'npid/npid_resnet18_1xb128-steplr-200e_cifar10.py',
            [(120, 0.03), (160, 0.003), (200, 3e-4)],
        ),
        (
            'npid/npid_resnet50_8xb32-steplr-200e_in1k.py',
            [(120, 0.03), (160, 0.003), (200, 3e-4)],
        ),
        (
            'moco/moco-v1_resnet50_8xb32-steplr-200e_in1k.py',
            [(120, 0.03), (160, 0.003), (200, 3e-4)],
        ),
        (
            'sela/sela_resnet50_8xb32-steplr-400e_in1k.py',
            [(150, 0.08), (300, 0.008), (350, 8e-4), (400, 8e-5)],
        ),
    ],
)
def test_tables_of_the_official_code(name, table):
    rates = learning_rates(name)
    for epoch, rate in enumerate(rates):
        # the first entry whose end lies after the epoch, counted from 0
        expected = next(lr for end, lr in table if end > epoch)
        assert rate == pytest.approx(expected), epoch
    assert len(rates) == table[-1][0]


def test_rates_of_exemplar_cnn():
    """Those of the released solver: factors of rate and weight decay."""
    cfg = read_only(
        ROOT / 'configs/exemplar_cnn/exemplar-cnn_64c5-128c5-256c5-512f_'
        '1xb128-steplr-156e_stl10.py'
    )
    model = nn.ModuleDict(
        dict(
            backbone=MODELS.build(
                {**cfg.model.backbone, 'arch': '2c5-2c5-2c5-2f'}
            ),
            head=MODELS.build(
                {**cfg.model.head, 'in_channels': 2, 'num_exemplars': 3}
            ),
        )
    )
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[group['params'][0]]: (
            group['lr'] / 0.01,
            group['weight_decay'] / 0.004,
        )
        for group in optimizer.param_groups
    }
    assert len(found) == len(names) == 10
    weights = [(1, 0), (1, 0), (1, 0.25), (1, 1), (0.25, 4)]
    for (name, factors), want in zip(
        found.items(), [x for w in weights for x in (w, (2, 0))], strict=True
    ):
        assert factors == pytest.approx(want), name


@pytest.mark.parametrize(
    ('name', 'epochs', 'top', 'warmup'),
    [
        ('66xb62-larc-coslr-100e', 100, 4.8, 10),
        ('66xb62-larc-coslr-200e', 200, 4.8, 10),
        ('66xb62-larc-coslr-400e', 400, 4.8, 10),
        ('66xb62-larc-coslr-800e', 800, 3.2, 10),
        ('8xb32-larc-coslr-100e', 100, 0.3, 0),
        ('8xb64-larc-coslr-100e', 100, 0.6, 0),
        ('8xb128-larc-coslr-100e', 100, 1.2, 10),
        ('8xb256-larc-coslr-100e', 100, 2.4, 10),
    ],
)
def test_rates_of_self_classifier(name, epochs, top, warmup):
    name = f'self_classifier/self-classifier_resnet50_{name}_in1k.py'
    rates = learning_rates(name)
    share = np.arange(epochs - warmup) / (epochs - warmup)
    last = top / 1000
    expected = last + (top - last) * (1 + np.cos(np.pi * share)) / 2
    # mmengine's warm-up arrives a step early
    start = np.linspace(0.2 if epochs == 800 else 0.3, top, warmup)
    np.testing.assert_allclose(rates, [*start, *expected], rtol=1e-6)


@pytest.mark.parametrize(
    ('name', 'batch', 'queue'),
    [
        ('66xb62-larc-coslr-100e', 4092, 262144),
        ('8xb32-larc-coslr-100e', 256, 16384),
        ('8xb64-larc-coslr-100e', 512, 262144),
        ('8xb128-larc-coslr-100e', 1024, 262144),
        ('8xb256-larc-coslr-100e', 2048, 262144),
    ],
)
def test_recipes_of_self_classifier(name, batch, queue):
    """All of the authors' are in float32 and normalize in the neck."""
    name = f'self-classifier_resnet50_{name}_in1k.py'
    cfg = read_only(ROOT / 'configs/self_classifier' / name)
    processes = int(name.split('_')[2].split('xb')[0])
    assert processes * cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert MODELS.build(cfg.model.queue).length == queue
    assert cfg.model.neck.norm_cfg.type == 'SyncBN'
    assert cfg.optim_wrapper.get('type', 'OptimWrapper') == 'OptimWrapper'


def test_views_of_self_classifier():
    """The probabilities of the authors' code, of each of eight views."""
    cfg = Config.fromfile(
        ROOT / 'configs/self_classifier/'
        'self-classifier_resnet50_66xb62-larc-coslr-100e_in1k.py'
    )
    (views,) = [
        step
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type == 'MultiView'
    ]
    found = []
    for number, steps in zip(views.num_views, views.transforms, strict=True):
        kinds = {step.type: step for step in steps}
        crop, blur = kinds['RandomResizedCrop'], kinds['GaussianBlur']
        solarize = kinds.get('Solarize', dict(prob=0))
        found.append(
            (
                number,
                crop.scale,
                *crop.crop_ratio_range,
                crop.interpolation,
                kinds['RandomFlip'].prob,
                kinds['RandomApply'].prob,
                kinds['RandomGrayscale'].prob,
                blur.prob,
                solarize['prob'],
            )
        )
    assert found == [
        (1, 224, 0.4, 1.0, 'bicubic', 0.5, 0.8, 0.2, 0.1, 0),
        (1, 224, 0.4, 1.0, 'bicubic', 0.5, 0.8, 0.2, 1.0, 0.2),
        (6, 96, 0.05, 0.4, 'bicubic', 0.5, 0.8, 0.2, 0.5, 0),
    ]
