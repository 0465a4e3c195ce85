"""Configs of linear evaluation: all but the classifiers stays as it is."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from test_all_configs import (
    BATCH_SIZE,
    Witness,
    learning_rates,
    nodes,
    read_only,
    shrink,
)

from mm_rotssl.registry import MODELS

pytest_plugins = ['stand_ins']

ROOT = Path(__file__).parents[2] / 'configs'
RESNETS = sorted((ROOT / 'transfer/mmpretrain/linear').glob('*.py'))
ALEXNETS = sorted((ROOT / 'rotnet/probes').glob('alexnet*.py'))
PLACES = [path for path in RESNETS + ALEXNETS if 'places205' in path.stem]


@pytest.fixture(autouse=True)
def surroundings():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    yield
    torch.set_num_threads(threads)


def names(path):
    return path.stem


def small(path, checkpoint):
    """A config with images of 64 pixels and the weights of a file."""
    cfg = copy.deepcopy(read_only(path))
    for node in nodes(cfg._cfg_dict):
        for key in ('crop_size', 'scale'):
            if key in node:
                node[key] = 64
    backbone = cfg.model.backbone
    if path in ALEXNETS:
        backbone.input_size = 64
    shrink(cfg)
    backbone.init_cfg.checkpoint = str(checkpoint)
    # one that would show
    cfg.optim_wrapper.optimizer.lr = 0.1
    return cfg


@pytest.mark.parametrize('path', RESNETS + ALEXNETS, ids=names)
@pytest.mark.usefixtures('in_stand_ins', 'quick_runner')
def test_only_the_classifiers_are_trained(path, tmp_path):
    file = tmp_path / 'weights.pth'
    cfg = small(path, file)
    torch.manual_seed(3)
    backbone = {**cfg.model.backbone, 'init_cfg': None}
    weights = MODELS.build(backbone).state_dict()
    for name, value in weights.items():
        if name.endswith('running_mean'):
            value.normal_(std=0.1)
    prefix = cfg.model.backbone.init_cfg.get('prefix', '')
    torch.save({f'{prefix}{name}': v for name, v in weights.items()}, file)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = path.stem
    cfg.randomness.seed = 0
    runner = Runner.from_cfg(cfg)
    witness = Witness()
    runner.register_hook(witness)
    model = runner.model
    model.init_weights()
    before = {k: v.clone() for k, v in model.head.state_dict().items()}
    runner.train()
    assert all(loss.isfinite() for loss in witness.losses)
    found = model.backbone.state_dict()
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(found[name], value), name
    assert not any(p.requires_grad for p in model.backbone.parameters())
    changed = {
        name
        for name, value in model.head.named_parameters()
        if not torch.equal(value, before[name])
    }
    linear = {n for n, _ in model.head.named_parameters()}
    assert changed == linear
    # a weight and a bias of each classifier
    stages = len(cfg.model.backbone.get('out_indices', [3]))
    assert len(linear) == 2 * stages
    kinds = {
        f'accuracy/{stage}top{k}'
        for k in (1, 5)
        for stage in (
            [f'stage{i + 1}_' for i in range(stages)] if stages > 1 else ['']
        )
    }
    assert witness.metrics.keys() == kinds


@pytest.mark.parametrize('path', RESNETS, ids=names)
def test_numbers_of_the_name(path):
    cfg = read_only(path)
    devices, images = map(
        int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups()
    )
    assert cfg.train_dataloader.batch_size == images
    assert cfg.auto_scale_lr.base_batch_size == devices * images
    epochs = int(re.search(r'-(\d+)e_', path.stem)[1])
    assert cfg.train_cfg.max_epochs == epochs
    head = cfg.model.head
    assert head.num_classes == (205 if path in PLACES else 1000)
    if 'mhead' in path.stem:
        assert head.pool == 'avg'
        assert head.norm_cfg.type == 'SyncBN'
    backbone = cfg.model.backbone
    assert (backbone.depth, backbone.frozen_stages) == (50, 4)
    # as of its training
    assert backbone.norm_eval is True
    assert backbone.init_cfg == dict(
        type='Pretrained', checkpoint='work_dirs/backbone.pth'
    )
    hooks = [hook['type'] for hook in cfg.custom_hooks]
    assert hooks.count('mm_rotssl.PretrainedCheckHook') == 1
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.test_evaluator == cfg.val_evaluator


def steps(*table):
    return [rate for end, rate in table for _ in range(end)]


def cosine(lr, epochs):
    return lr * (1 + np.cos(np.pi * np.arange(epochs) / epochs)) / 2


@pytest.mark.parametrize(
    ('name', 'optimizer', 'decay', 'rates'),
    [
        (
            '8xb32-steplr-100e_in1k',
            'SGD',
            0,
            steps((60, 30), (20, 3), (20, 0.3)),
        ),
        ('8xb32-coslr-100e_in1k', 'SGD', 1e-6, cosine(0.3, 100)),
        ('8xb128-coslr-90e_in1k', 'SGD', 0, cosine(0.4, 90)),
        ('8xb512-lars-coslr-90e_in1k', 'LARS', 0, cosine(1.6, 90)),
        ('8xb512-larc-coslr-100e_in1k', 'mm_rotssl.LARC', 0, cosine(0.8, 100)),
        (
            '8xb32-steplr-90e_in1k',
            'SGD',
            1e-4,
            steps((60, 0.01), (20, 1e-3), (10, 1e-4)),
        ),
        (
            '8xb32-steplr-28e_places205',
            'SGD',
            1e-4,
            steps((7, 0.01), (7, 1e-3), (7, 1e-4), (7, 1e-5)),
        ),
    ],
)
def test_recipes(name, optimizer, decay, rates):
    (path,) = (p for p in RESNETS if p.stem.endswith(f'linear_{name}'))
    found = read_only(path).optim_wrapper.optimizer
    assert (found.type, found.momentum) == (optimizer, 0.9)
    assert found.weight_decay == decay
    assert bool(found.get('nesterov')) == ('mhead' in path.stem)
    np.testing.assert_allclose(
        learning_rates(path.relative_to(ROOT)), rates, rtol=1e-6, atol=1e-12
    )


def test_every_recipe_is_checked():
    assert len(RESNETS) == 7
    assert len(ALEXNETS) == 2


def test_classifiers_of_rotnet():
    """Sizes and first weights of the official code."""
    for path, classes in zip(ALEXNETS, (1000, 205), strict=True):
        cfg = read_only(path)
        torch.manual_seed(0)
        head = MODELS.build(cfg.model.head)
        head.init_weights()
        sizes = [
            (one[3].in_features, one[3].out_features)
            for one in head.classifiers
        ]
        assert sizes == [
            (width, classes) for width in (9216, 9408, 9600, 9216, 9216)
        ]
        for one in head.classifiers:
            assert one[3].weight.std().item() == pytest.approx(
                (2 / classes) ** 0.5, rel=0.01
            )
            assert not one[3].bias.any()
            assert type(one[0]) is torch.nn.AdaptiveMaxPool2d
        assert cfg.model.data_preprocessor.num_classes == classes


@pytest.mark.parametrize('path', PLACES, ids=names)
@pytest.mark.usefixtures('in_stand_ins')
def test_places_are_not_scaled(path):
    cfg = read_only(path)
    for part in ('train', 'val'):
        settings = copy.deepcopy(cfg[f'{part}_dataloader'].to_dict())
        loader = Runner.build_dataloader(
            {**settings, 'batch_size': BATCH_SIZE, 'num_workers': 0}
        )
        assert len(loader.dataset) == 4
        assert len(loader.dataset.CLASSES) == 205
        assert loader.dataset[0]['inputs'].shape == (3, 224, 224)
        kinds = [step['type'] for step in settings['dataset']['pipeline']]
        assert not any('Resize' in kind for kind in kinds)


def test_colors_of_mmselfsup():
    path = next(p for p in RESNETS if 'mhead' in p.stem and 'in1k' in p.stem)
    cfg = read_only(path)
    kinds = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    jitter = kinds['ColorJitter']
    assert jitter.get('hue', 0) == 0
    assert {jitter[k] for k in ('brightness', 'contrast', 'saturation')} == {
        0.4
    }
    assert kinds['RandomResizedCrop'].interpolation == 'bicubic'
    # of BGR: blue has the smallest share of the first component
    assert np.abs(kinds['Lighting'].eigvec).argmax(1).tolist() == [1, 2, 1]
