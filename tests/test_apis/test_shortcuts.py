"""What the shortcuts make of the shipped configs of each method."""

import copy
import functools

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from mm_rotssl.apis import (
    apply_shortcuts,
    set_crop_size,
    set_data,
    set_epochs,
)
from mm_rotssl.utils import list_configs

# a config a kind of method, schedule and data
NAMES = (
    'rotnet_nin_1xb128-steplr-200e_cifar10',
    'rotnet_resnet18_1xb64-100e_custom',
    'rotnet_alexnet-bn_1xb192-steplr-50e_in1k',
    'rotnet_resnet50_8xb16-steplr-70e_in1k',
    'feature-decoupling_nin-w24_1xb128-15e_digits',
    'feature-decoupling_nin_1xb128-steplr-200e_cifar10',
    'exemplar-cnn_32c5-32c5-128f_1xb128-15e_digits',
    'exemplar-cnn_64c5-64c5-128f_1xb128-steplr-156e_stl10',
    'self-classifier_resnet50_8xb64-larc-coslr-100e_in1k',
    'self-classifier_resnet50_66xb62-larc-coslr-800e_in1k',
    'essl-simclr_resnet18_1xb512-coslr-200e_cifar10',
    'moco_nin-w24_1xb128-20e_digits',
    'multi-task_32c5-32c5-128f_1xb64-10e_digits',
)
ITERATIONS = 'alexnet-bn_1xb16-80k_voc07-cls'


@functools.cache
def read(name):
    return Config.fromfile(list_configs()[name][0])


def load(name):
    return copy.deepcopy(read(name))


def schedulers(cfg):
    found = cfg.param_scheduler
    return [found] if isinstance(found, dict) else found


def rates(cfg):
    """The learning rate in each epoch, by mmengine's schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    built = []
    for settings in schedulers(cfg):
        # as the runner does
        settings = dict(end=cfg.train_cfg.max_epochs) | settings
        if settings.pop('convert_to_iter_based', False):
            settings['epoch_length'] = 1
            settings['convert_to_iter_based'] = True
        built.append(
            PARAM_SCHEDULERS.build(
                settings, default_args=dict(optimizer=optimizer)
            )
        )
    found = []
    for _ in range(cfg.train_cfg.max_epochs):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return found


@pytest.mark.parametrize('name', NAMES)
def test_schedule_is_stretched(name):
    """Twice as long after the warm-up, which stays as it is."""
    cfg = load(name)
    old, before = cfg.train_cfg.max_epochs, rates(cfg)
    warmup = sum(
        s.end for s in schedulers(cfg) if s.type == 'LinearLR' and s.end < old
    )
    set_epochs(cfg, warmup + 2 * (old - warmup))
    after = rates(cfg)
    assert len(after) == cfg.train_cfg.max_epochs
    assert after[:warmup] == pytest.approx(before[:warmup])
    assert after[warmup::2] == pytest.approx(before[warmup:], abs=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_same_length_changes_nothing(name):
    cfg = load(name)
    set_epochs(cfg, cfg.train_cfg.max_epochs)
    assert cfg.to_dict() == read(name).to_dict()


@pytest.mark.parametrize('epochs', [1, 2, 3])
@pytest.mark.parametrize('name', NAMES)
def test_short_runs(name, epochs):
    """Whatever is left, mmengine can run it, and it is all seen."""
    cfg = load(name)
    set_epochs(cfg, epochs)
    assert all(0 < rate <= 10 for rate in rates(cfg))
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.train_cfg.get('val_interval', 1) <= epochs
    assert cfg.default_hooks.checkpoint.interval <= epochs
    # iterations
    assert (
        cfg.default_hooks.logger.interval
        == read(name).default_hooks.logger.interval
    )
    assert cfg.model.get('noise_start_epoch', 0) < epochs


@pytest.mark.parametrize(
    ('name', 'epochs', 'expected'),
    [
        (
            'rotnet_nin_1xb128-steplr-200e_cifar10',
            50,
            [dict(milestones=[15, 30, 40])],
        ),
        (
            'rotnet_nin_1xb128-steplr-200e_cifar10',
            1,
            # no decay before the end of the run
            [dict(milestones=[1, 1, 1])],
        ),
        (
            'self-classifier_resnet50_66xb62-larc-coslr-800e_in1k',
            100,
            [dict(end=10), dict(begin=10)],
        ),
        # a warm-up of at most half of the run
        (
            'self-classifier_resnet50_66xb62-larc-coslr-800e_in1k',
            10,
            [dict(end=5), dict(begin=5)],
        ),
        (
            'self-classifier_resnet50_66xb62-larc-coslr-800e_in1k',
            1,
            [dict(begin=0)],
        ),
        (
            'feature-decoupling_nin-w24_1xb128-15e_digits',
            30,
            [dict(end=24), dict(begin=24, periods=[6])],
        ),
    ],
)
def test_schedules(name, epochs, expected):
    cfg = load(name)
    set_epochs(cfg, epochs)
    found = schedulers(cfg)
    assert len(found) == len(expected)
    for scheduler, settings in zip(found, expected, strict=True):
        assert {key: scheduler[key] for key in settings} == settings


@pytest.mark.parametrize(
    ('epochs', 'expected'),
    [
        (100, dict(begin=10, end=100, T_max=90)),
        (10, dict(begin=5, end=10, T_max=5)),
        (1, dict(begin=0, end=1, T_max=1)),
    ],
)
def test_a_schedule_that_names_its_end(epochs, expected):
    cfg = load('self-classifier_resnet50_66xb62-larc-coslr-800e_in1k')
    cfg.param_scheduler[1].update(end=800, T_max=790)
    set_epochs(cfg, epochs)
    last = schedulers(cfg)[-1]
    assert {key: last[key] for key in expected} == expected


def test_all_that_counts_epochs_follows():
    cfg = load('feature-decoupling_nin-w24_1xb128-15e_digits')
    assert cfg.model.noise_start_epoch == 12
    hooks = [
        dict(type='mm_rotssl.TaskWeightHook', task='a', end_epoch=1),
        dict(type='TaskWeightHook', task='a', begin=6, end_epoch=9),
        dict(type='TaskWeightHook', task='a', begin=5, end_iter=600),
        dict(type='CheckpointHook', interval=300, by_epoch=False),
        dict(type='EMAHook', begin_epoch=3),
    ]
    cfg.custom_hooks = hooks
    cfg.train_cfg.update(val_interval=15, val_begin=10)
    set_epochs(cfg, 5)
    assert cfg.model.noise_start_epoch == 4
    assert (cfg.train_cfg.val_interval, cfg.train_cfg.val_begin) == (5, 5)
    assert [
        (h.get('begin'), h.get('end_epoch'), h.get('begin_epoch'))
        for h in cfg.custom_hooks
    ] == [
        (0, 1, None),
        (2, 3, None),
        (5, None, None),
        (None, None, None),
        (None, None, 1),
    ]
    assert cfg.custom_hooks[3].interval == 300


def test_schedules_of_other_kinds():
    cfg = Config(
        dict(
            train_cfg=dict(max_epochs=20),
            param_scheduler=[
                dict(type='LinearLR', by_epoch=False, end=500),
                dict(type='StepLR', step_size=8),
                dict(type='OneCycleLR', total_steps=20),
                dict(type='CosineRestartLR', periods=[4, 16]),
                dict(type='ExponentialLR', gamma=0.9),
            ],
        )
    )
    set_epochs(cfg, 10)
    assert [dict(s) for s in cfg.param_scheduler] == [
        dict(type='LinearLR', by_epoch=False, end=500),
        dict(type='StepLR', step_size=4),
        dict(type='OneCycleLR', total_steps=10),
        dict(type='CosineRestartLR', periods=[2, 8]),
        dict(type='ExponentialLR', gamma=0.9),
    ]


@pytest.mark.parametrize(
    ('name', 'training', 'validation'),
    [
        # of 224: the crop; resized to 256 and cropped
        ('rotnet_alexnet-bn_1xb192-steplr-50e_in1k', [112], [128, 112]),
        ('rotnet_resnet18_1xb64-100e_custom', [112], []),
        # views of 224, 224 and 96
        (
            'self-classifier_resnet50_8xb64-larc-coslr-100e_in1k',
            [112, 112, 48],
            [128, 112],
        ),
        # of 32; views of 32 and 16
        ('rotnet_nin_1xb128-steplr-200e_cifar10', [112], []),
        ('essl-simclr_resnet18_1xb512-coslr-200e_cifar10', [112, 56], []),
        ('feature-decoupling_resnet18_1xb64-100e_custom', [112], []),
        ('moco_nin-w24_1xb128-20e_digits', [112], []),
    ],
)
def test_crop_size(name, training, validation):
    cfg = load(name)
    set_crop_size(cfg, 112)

    def sizes(node):
        if isinstance(node, (list, tuple)):
            return [size for child in node for size in sizes(child)]
        if not isinstance(node, dict):
            return []
        if node.get('type', '').endswith(('Crop', 'CropFlip', 'ResizeEdge')):
            return [node.get('crop_size', node.get('scale'))]
        return sizes(list(node.values()))

    assert sizes(cfg.train_dataloader) == training
    assert sizes(cfg.get('val_dataloader')) == validation
    # where it was the size of ImageNet, the backbone is made for another
    assert cfg.model.get('backbone', {}).get('input_size') == (
        112 if 'alexnet' in name else None
    )


def test_crop_size_of_other_transforms():
    transforms = [
        dict(type='Resize', scale=(320, 160)),
        dict(type='RandomCrop', crop_size=(64, 96)),
        dict(type='Resize', scale_factor=2.0),
        dict(type='torchvision/RandomResizedCrop', size=48, scale=(0.1, 1.0)),
        dict(type='Rotate', scale=96),
    ]
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='VisionTransformer', img_size=96),
            ),
            train_dataloader=dict(dataset=dict(pipeline=transforms)),
            # the reference set is seen as the validation images are
            val_cfg=dict(
                reference_dataloader=dict(
                    dataset=dict(
                        pipeline=[dict(type='CenterCrop', crop_size=96)]
                    )
                )
            ),
            test_dataloader=dict(
                dataset=dict(pipeline=[dict(type='Resize', scale=(-1, 96))])
            ),
        )
    )
    set_crop_size(cfg, 48)
    assert cfg.train_dataloader.dataset.pipeline == [
        dict(type='Resize', scale=(160, 80)),
        dict(type='RandomCrop', crop_size=(32, 48)),
        dict(type='Resize', scale_factor=2.0),
        dict(type='torchvision/RandomResizedCrop', size=24, scale=(0.1, 1.0)),
        dict(type='Rotate', scale=96),
    ]
    (crop,) = cfg.val_cfg.reference_dataloader.dataset.pipeline
    assert crop.crop_size == 48
    assert cfg.test_dataloader.dataset.pipeline[0].scale == (-1, 48)
    assert cfg.model.backbone.img_size == 48


def test_crop_size_of_a_segmenter():
    """Crops would be padded to the old size, and windows as large."""
    preprocessor = dict(type='SegDataPreProcessor', size=(64, 96))
    cfg = Config(
        dict(
            data_preprocessor=preprocessor,
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=preprocessor,
                test_cfg=dict(mode='slide', crop_size=96, stride=(64, 32)),
            ),
            train_dataloader=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='RandomCrop', crop_size=(64, 96)),
                        dict(type='Pad', size=(64, 96)),
                        dict(type='Pad', size=None, size_divisor=32),
                    ]
                )
            ),
        )
    )
    set_crop_size(cfg, 48)
    crop, pad, other = cfg.train_dataloader.dataset.pipeline
    assert crop.crop_size == pad.size == (32, 48)
    assert other == dict(type='Pad', size=None, size_divisor=32)
    assert cfg.data_preprocessor.size == (32, 48)
    assert cfg.model.data_preprocessor.size == (32, 48)
    assert cfg.model.test_cfg == dict(
        mode='slide', crop_size=48, stride=(32, 16)
    )


@pytest.mark.parametrize(
    'name',
    [
        'rotnet_32c5-32c5-128f_1xb32-8e_cifar10-folder',
        'self-classifier_32c5-32c5-128f_1xb128-20e_digits',
    ],
)
def test_backbone_of_a_default_size(name):
    """Its fully connected layer is as wide as 32 pixels leave."""
    cfg = load(name)
    assert 'input_size' not in cfg.model.backbone
    set_crop_size(cfg, 24)
    assert cfg.model.backbone.input_size == 24


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('rotnet_resnet18_1xb64-100e_custom', 'dataset'),
        ('rotnet_alexnet-bn_1xb192-steplr-50e_in1k', 'dataset'),
        ('feature-decoupling_resnet18_1xb64-100e_custom', 'dataset'),
        ('essl-simclr_resnet18_1xb512-coslr-200e_cifar10', 'dataset'),
        (
            'self-classifier_resnet18_1xb128-larc-coslr-100e_custom',
            'dataset',
        ),
        (
            'exemplar-cnn_64c5-128c5-256c5-512f_1xb128-100e_custom',
            'dataset.dataset',
        ),
        # whose folder is a default of the class
        (
            'exemplar-cnn_64c5-64c5-128f_1xb128-steplr-156e_stl10',
            'dataset.dataset',
        ),
    ],
)
def test_data(name, key, tmp_path):
    cfg, expected = load(name), load(name)
    set_data(cfg, tmp_path)
    expected.merge_from_dict(
        {f'train_dataloader.{key}.data_root': str(tmp_path)}
    )
    assert cfg.to_dict() == expected.to_dict()


def test_data_of_several_datasets():
    cfg = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    dataset=dict(
                        type='ConcatDataset',
                        datasets=[
                            dict(type='A', data_root='a'),
                            dict(type='B', data_root='b'),
                        ],
                    ),
                )
            )
        )
    )
    set_data(cfg, 'c')
    datasets = cfg.train_dataloader.dataset.dataset.datasets
    assert [dataset.data_root for dataset in datasets] == ['c', 'c']


@pytest.mark.parametrize(
    ('name', 'shortcut', 'message'),
    [
        (ITERATIONS, dict(epochs=2), r'--epochs 2: .*voc07.*max_iters=N'),
        (NAMES[0], dict(epochs=0), r'--epochs 0: must be positive'),
        (NAMES[0], dict(batch_size=0), r'--batch-size 0: must be positive'),
        (NAMES[0], dict(lr=-0.1), r'--lr -0\.1: must be positive'),
        (NAMES[0], dict(crop_size=0), r'--crop-size 0: must be positive'),
        (
            'exemplar-cnn_64c5-128c5-256c5-512f_1xb128-100e_custom',
            dict(crop_size=48),
            r'--crop-size 48: .*custom\.py trains on patches.*patch_size',
        ),
        (
            'multi-task_32c5-32c5-128f_1xb64-10e_digits',
            dict(crop_size=48),
            r'--crop-size 48: .*trains on patches',
        ),
        (
            'rotnet_nin-w24_1xb64-10e_digit-scenes',
            dict(crop_size=48),
            r'--crop-size 48: no transform of train_dataloader in .*scenes',
        ),
        (
            'rotnet_nin-w24_1xb128-15e_digits',
            dict(data='a'),
            r'--data a: .*digits\.py take no data_root: '
            r'train_dataloader\.dataset \(Digits\)\.$',
        ),
        (
            'multi-task_32c5-32c5-128f_1xb64-10e_digits',
            dict(data='a'),
            r'datasets\.rotation \(Digits\), train_dataloader\.dataset\.'
            r'datasets\.exemplar\.dataset \(Digits\), .*clusters \(Digits\)',
        ),
    ],
)
def test_without_effect(name, shortcut, message):
    cfg = load(name)
    with pytest.raises(ValueError, match=message):
        apply_shortcuts(cfg, **shortcut)


@pytest.mark.parametrize(
    ('shortcut', 'key'),
    [
        (dict(batch_size=8), r'train_dataloader\.batch_size'),
        (dict(lr=0.1), r'optim_wrapper\.optimizer'),
        (dict(epochs=3), r'train_cfg\.max_epochs'),
        (dict(crop_size=32), 'train_dataloader'),
        (dict(data='a'), r'train_dataloader\.dataset'),
    ],
)
def test_config_for_no_training(shortcut, key):
    (name,) = shortcut
    with pytest.raises(
        ValueError, match=f'^--{name.replace("_", "-")} .*{key}'
    ):
        apply_shortcuts(Config(dict(model=dict(type='A'))), **shortcut)


def test_rate_and_batch_size():
    cfg, expected = load(NAMES[0]), load(NAMES[0])
    apply_shortcuts(cfg, batch_size=8, lr=0.125)
    expected.train_dataloader.batch_size = 8
    expected.optim_wrapper.optimizer.lr = 0.125
    assert cfg.to_dict() == expected.to_dict()


def test_images_of_hooks_are_cropped_alike():
    """Those of which pseudo-labels are made."""
    cfg = load('deepcluster_resnet18_1xb128-100e_custom')
    set_crop_size(cfg, 112)
    (hook,) = (h for h in cfg.custom_hooks if 'Relabel' in h['type'])
    sizes = {
        step['type']: step.get('crop_size') or step.get('scale')
        for step in hook['pipeline']
    }
    assert sizes['CenterCrop'] == 112
    assert sizes['ResizeEdge'] == 128
    assert cfg.test_dataloader.dataset.pipeline[2].crop_size == 112
