"""Every config loads, builds and takes one optimizer step."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    PARAM_SCHEDULERS,
    init_default_scope,
)

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
    # what is trained there is of other libraries: test_transfer_configs.py
    and ROOT / 'configs/benchmarks' not in path.parents
)


POOLING = 'GlobalAveragePooling'


def shrink(model):
    """Make a network small, its kind and wiring unchanged."""
    backbone = model['backbone']
    kind = backbone['type'].split('.')[-1]
    init_cfg = backbone.get('init_cfg') or {}
    if init_cfg.get('type') == 'Pretrained':
        backbone.pop('init_cfg')
    if kind == 'ResNet' and backbone['depth'] == 50:
        backbone.update(base_channels=8)
        backbone.update(stem_channels=8)
        part = 'head' if model['neck']['type'] == POOLING else 'neck'
        model[part]['in_channels'] = 8 * 32


def images(dataset, count):
    """Dataset entries without files: noise in the place of images."""
    if dataset['type'] == 'mm_rotssl.MultiTaskDataset':
        streams = {
            name: images(stream, count)
            for name, stream in dataset['datasets'].items()
        }
        return [
            {name: entries[i] for name, entries in streams.items()}
            for i in range(count)
        ]
    rng = np.random.RandomState(0)
    size = 32 if re.search('cifar|Digits', str(dataset), re.I) else 256
    if dataset['type'] == 'mm_rotssl.ExemplarDataset':
        # as large as the windows around the seeds
        size = 84
    pipeline = [
        step for step in dataset['pipeline'] if 'LoadImage' not in step['type']
    ]
    run = Compose(copy.deepcopy(pipeline))
    return [
        run(
            dict(
                img=rng.randint(0, 256, (size, size, 3), dtype=np.uint8),
                img_shape=(size, size),
                ori_shape=(size, size),
                gt_label=i,
                exemplar_label=i,
                sample_idx=i,
                img_path=f'{i}.jpg',
            )
        )
        for i in range(count)
    ]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    shrink(cfg.model.get('algorithm', cfg.model))
    # what BYOL's momentum is scheduled by
    MessageHub.get_current_instance().update_info('max_iters', 10)
    torch.manual_seed(0)
    if 'data_preprocessor' in cfg:
        # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    model.init_weights()
    # what the engine does when it is not distributed
    model = revert_sync_batchnorm(model)
    for module in model.modules():
        if hasattr(module, 'bind_dataset'):
            module.bind_dataset(['0.jpg', '1.jpg'])
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
        # half precision needs a GPU
        cfg.optim_wrapper.type = 'OptimWrapper'
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    batch = default_collate(images(cfg.train_dataloader.dataset, 2))
    # one, or one a stream
    for part in [batch] if 'inputs' in batch else batch.values():
        inputs = part['inputs']
        views = inputs if isinstance(inputs, list) else [inputs]
        assert all(view.dtype == torch.uint8 for view in views)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    logs = model.train().train_step(batch, wrapper)
    assert logs['loss'].isfinite()
    trained = [
        name for name, value in model.named_parameters() if value.requires_grad
    ]
    assert trained
    assert any(
        not torch.equal(before[name], model.state_dict()[name])
        for name in trained
    )

    if cfg.get('val_evaluator'):
        evaluators = cfg.val_evaluator
        if not isinstance(evaluators, list):
            evaluators = [evaluators]
        for evaluator in evaluators:
            METRICS.build(evaluator)
        batch = default_collate(images(cfg.val_dataloader.dataset, 2))
        # the algorithms of mmpretrain only give features
        if hasattr(model, 'predict'):
            assert len(model.eval().val_step(batch)) == 2
        else:
            assert cfg.val_cfg.type == 'mm_rotssl.KNNValLoop'
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    # its files are not here, but the class must be
    with DATASETS.switch_scope_and_registry('mmpretrain') as registry:
        assert registry.get(cfg.train_dataloader.dataset.type)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_batch_size_of_the_name(path):
    cfg = Config.fromfile(path)
    devices, batch = map(int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups())
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == devices * batch
    epochs = int(re.search(r'-(\d+)e_', path.stem).group(1))
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.train_dataloader.persistent_workers is False


def learning_rates(name):
    """The rate of each epoch, by the engine's own schedulers."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    init_default_scope('mmpretrain')
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    settings = cfg.param_scheduler
    schedulers = [
        PARAM_SCHEDULERS.build(
            # here a step is an epoch
            dict(one, optimizer=optimizer, convert_to_iter_based=False)
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
            'rotnet/benchmarks/nin-block2-nonlinear_1xb128-steplr-100e_cifar10.py',
            [(20, 0.1), (40, 0.02), (45, 0.004), (100, 0.0008)],
        ),
        (
            'rotnet/benchmarks/nin-block2-conv_1xb128-steplr-100e_cifar10.py',
            [(35, 0.1), (70, 0.02), (85, 0.004), (100, 0.0008)],
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
    ],
)
def test_tables_of_the_official_code(name, table):
    rates = learning_rates(name)
    for epoch, rate in enumerate(rates):
        # the first entry whose end lies after the epoch, counted from 0
        expected = next(lr for end, lr in table if end > epoch)
        assert rate == pytest.approx(expected), epoch
    assert len(rates) == table[-1][0]


@pytest.mark.parametrize(
    ('name', 'epochs', 'top', 'warmup'),
    [
        ('66xb62-larc-coslr-100e', 100, 4.8, 10),
        ('66xb62-larc-coslr-200e', 200, 4.8, 10),
        ('66xb62-larc-coslr-400e', 400, 4.8, 10),
        ('66xb62-larc-coslr-800e', 800, 3.2, 10),
        ('8xb32-larc-coslr-100e', 100, 0.3, 0),
        ('8xb64-larc-coslr-100e', 100, 0.6, 0),
        ('8xb128-larc-coslr-100e', 100, 1.2, 0),
        ('8xb256-larc-coslr-100e', 100, 2.4, 0),
    ],
)
def test_rates_of_self_classifier(name, epochs, top, warmup):
    name = f'self_classifier/self-classifier_resnet50_{name}_in1k.py'
    rates = learning_rates(name)
    share = np.arange(epochs - warmup) / (epochs - warmup)
    last = top / 1000
    expected = last + (top - last) * (1 + np.cos(np.pi * share)) / 2
    # mmengine's warm-up arrives a step early
    start = np.linspace(top / 16, top, warmup)
    np.testing.assert_allclose(rates, [*start, *expected], rtol=1e-6)


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
