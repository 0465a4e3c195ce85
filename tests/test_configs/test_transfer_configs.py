"""Configs that fine-tune a backbone with mmdet, mmseg and mmpretrain."""

import functools
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    HOOKS,
    MODELS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    DefaultScope,
)
from mmengine.runner import Runner
from torch import nn

from mm_rotssl.apis import read_config
from mm_rotssl.utils import attach_facts

pytest_plugins = ['stand_ins']

ROOT = Path(__file__).parents[2] / 'configs/transfer'
FOLDERS = (
    'mmdetection/coco',
    'mmdetection/voc0712',
    'mmsegmentation/voc12aug',
    'mmsegmentation/cityscapes',
    'mmpretrain',
    'mmpretrain/semi',
)
MAINS = [
    path for name in FOLDERS for path in sorted(ROOT.glob(f'{name}/*.py'))
]
# Not to be changed: the tests share what it returns.
read_only = functools.cache(read_config)

SHARED = 'model.roi_head.shared_head.init_cfg'


def marked(paths):
    return [
        pytest.param(
            path,
            id=path.stem,
            marks=()
            if library(path) == 'mmpretrain'
            else pytest.mark.downstream,
        )
        for path in paths
    ]


def of(*parts):
    """The configs with any of some texts in their paths."""
    return marked([p for p in MAINS if any(part in str(p) for part in parts)])


def kind(path):
    """The depth of a ResNet, or the name of another network."""
    return (
        int(re.search(r'(?:_r|^resnet)(18|50)[_-]', path.stem)[1])
        if ('alexnet' not in path.stem)
        else 'alexnet'
    )


def library(path):
    return path.relative_to(ROOT).parts[0]


def is_semi(path):
    return path.parent.name == 'semi'


def is_c4(path):
    return '-c4_' in path.stem


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def weights_of(tmp_path_factory):
    """File and tensors, of nothing in particular, for a kind of network."""
    folder = tmp_path_factory.mktemp('weights')
    made = {}

    def weights_of(name):
        if name not in made:
            torch.manual_seed(3)
            cfg = (
                dict(type='mm_rotssl.AlexNetBN', input_size=63)
                if name == 'alexnet'
                else dict(type='mmpretrain.ResNet', depth=name)
            )
            weights = MODELS.build(cfg).state_dict()
            for key, value in weights.items():
                if key.endswith('num_batches_tracked'):
                    value.fill_(7)
                elif key.endswith('running_var') or (
                    key.endswith('weight') and value.dim() == 1
                ):
                    value.uniform_(0.5, 1.5)
                elif value.dim() == 1:
                    value.normal_(std=0.1)
            torch.save(weights, folder / f'{name}.pth')
            made[name] = folder / f'{name}.pth', weights
        return made[name]

    return weights_of


# Fewer pixels and boxes, to be quick.
SMALL = {
    'mmdetection': {
        'model.train_cfg.rpn_proposal.max_per_img': 12,
        'model.train_cfg.rcnn.sampler.num': 8,
    },
    'mmsegmentation': {'model.data_preprocessor.size': (65, 65)},
    'mmpretrain': {},
}
SIDES = {'mmdetection': 128, 'mmsegmentation': 65, 'mmpretrain': 63}


def read(path, checkpoint):
    """A config whose weights are those of a file."""
    options = {'model.backbone.init_cfg.checkpoint': str(checkpoint)}
    if is_c4(path):
        options[f'{SHARED}.checkpoint'] = str(checkpoint)
    if kind(path) == 'alexnet':
        options['model.backbone.input_size'] = 63
    return read_config(path, {**options, **SMALL[library(path)]})


def nodes(node):
    """Every dict of a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from nodes(child)


def shrink_images(cfg, side):
    """Make everything that is cropped, padded or resized small."""
    for node in nodes(cfg):
        for key in ('scale', 'size', 'crop_size'):
            if key in node:
                one = isinstance(node[key], int)
                node[key] = side if one else (side, side)
        if 'scales' in node:
            node['scales'] = [(side, side)]


def run_checks(hooks, model, cfg=None):
    """What the engine calls before the first step."""
    hooks = [
        HOOKS.build(hook)
        for hook in hooks
        if 'PretrainedCheck' in hook['type']
    ]
    assert len(hooks) == 1
    if not hasattr(model, 'init_weights'):
        model.init_weights = model['backbone'].init_weights
    hooks[0].check(model, cfg or Config())


def parts_of(model, path):
    """Tensors by the names that they have in the file."""
    found = dict(model.backbone.state_dict())
    if is_c4(path):
        found.update(
            (name, value)
            for name, value in model.roi_head.shared_head.state_dict().items()
            if not name.startswith('norm.')
        )
    return found


# --- weights arrive, and are trained ---------------------------------------


class Witness(Hook):
    """Compare the weights with the file, and keep the largest gradients."""

    # after the weights are checked
    priority = 'LOWEST'

    def __init__(self, path, weights):
        self.path, self.weights = path, weights
        self.gradients, self.losses = {}, []

    def before_train(self, runner):
        found = parts_of(runner.model, self.path)
        assert found.keys() == self.weights.keys()
        for name, value in found.items():
            assert torch.equal(value, self.weights[name]), name
        trained = dict(runner.model.backbone.named_parameters())
        if is_c4(self.path):
            trained.update(
                runner.model.roi_head.shared_head.named_parameters()
            )
        for name, value in trained.items():
            assert value.requires_grad, name
            value.register_hook(functools.partial(self.keep, name))
        self.trained = trained.keys()

    def keep(self, name, gradient):
        self.gradients[name] = gradient.abs().max()

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.losses.append(outputs['loss'])


@pytest.mark.usefixtures('in_stand_ins', 'quick_runner')
@pytest.mark.parametrize('path', marked(MAINS))
def test_weights_arrive_and_are_trained(path, weights_of, tmp_path):
    file, weights = weights_of(kind(path))
    cfg = read(path, file)
    shrink_images(cfg.train_dataloader, SIDES[library(path)])
    cfg.train_dataloader.update(
        batch_size=2, num_workers=0, persistent_workers=False
    )
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    # one step
    cfg.train_cfg.pop('max_epochs', None)
    cfg.train_cfg.pop('by_epoch', None)
    cfg.train_cfg.update(type='IterBasedTrainLoop', max_iters=1, val_begin=2)
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
    for scheduler in nodes(cfg.param_scheduler):
        if 'start_factor' in scheduler:
            # so low a rate would be lost in the weights' rounding
            scheduler.start_factor = 1.0
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = path.stem
    cfg.randomness = dict(seed=0)
    runner = Runner.from_cfg(cfg)
    if kind(path) != 'alexnet':
        norms = [
            m for m in runner.model.modules() if hasattr(m, 'running_var')
        ]
        assert norms
        # what the engine makes of SyncBatchNorm for one process
        assert {type(norm).__name__ for norm in norms} == {'_BatchNormXd'}
    witness = Witness(path, weights)
    runner.register_hook(witness)
    runner.train()
    assert all(loss.isfinite() for loss in witness.losses)
    assert len(witness.losses) == 1
    for name in witness.trained:
        if name.endswith('weight'):
            # biases before a normalization have none but rounding errors
            assert witness.gradients[name] > 0, name
    for name, value in parts_of(runner.model, path).items():
        if name.endswith(('weight', 'running_mean', 'running_var')):
            assert not torch.equal(value, weights[name]), name
        if name.endswith('num_batches_tracked'):
            # one more forward pass in training mode
            assert value == 8, name
    # validation is at hand
    count = 4 if is_semi(path) else 2
    assert len(runner.val_loop.dataloader.dataset) == count


@pytest.mark.parametrize('path', of('mmdetection'))
def test_new_layers_of_detectors_are_normalized(path):
    model = read_only(path).model
    assert model.backbone.norm_cfg.type == 'SyncBN'
    head = model.roi_head
    if is_c4(path):
        new = [head.shared_head]
        assert head.shared_head.type == 'ResLayerExtraNorm'
        assert head.shared_head.norm_eval is False
    else:
        new = [model.neck, head.bbox_head]
        assert head.bbox_head.type == 'Shared4Conv1FCBBoxHead'
        if 'mask' in path.stem:
            new.append(head.mask_head)
    for part in new:
        assert part.norm_cfg == dict(type='SyncBN', requires_grad=True)
    masks = [key for key in head if 'mask' in key]
    assert bool(masks) == ('mask' in path.stem)


# --- initialization ---------------------------------------------------------


@pytest.mark.parametrize('path', marked(MAINS))
def test_every_file_of_weights_is_replaced_by_a_comparison(path):
    """``compare-transfer --init`` replaces each ``Pretrained``."""
    cfg = read_only(path)
    file = dict(type='Pretrained', checkpoint='work_dirs/backbone.pth')
    places = [cfg.model.backbone.init_cfg]
    if is_c4(path):
        places.append(cfg.model.roi_head.shared_head.init_cfg)
    assert places == [file] * len(places)
    assert sum(n.get('type') == 'Pretrained' for n in nodes(cfg.model)) == len(
        places
    )
    # mmseg would load it in addition
    assert cfg.model.get('pretrained') is None
    hooks = [hook['type'] for hook in cfg.custom_hooks]
    assert hooks.count('mm_rotssl.PretrainedCheckHook') == 1


# --- protocols --------------------------------------------------------------


@pytest.mark.parametrize('path', marked(MAINS))
def test_numbers_of_the_name(path):
    cfg = read_only(path)
    devices, images = map(
        int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups()
    )
    assert devices * images == (256 if is_semi(path) else 16)
    assert cfg.train_dataloader.batch_size == images
    assert cfg.auto_scale_lr.base_batch_size == devices * images
    # scaled only if asked for
    assert not cfg.auto_scale_lr.get('enable')
    steps = re.search(r'-(\d+)k_', path.stem)
    if steps:
        assert cfg.train_cfg.max_iters == int(steps[1]) * 1000
        assert cfg.default_hooks.checkpoint.by_epoch is False
        assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
        # measured, and saved, at the end
        assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
        assert (
            cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval
        )
    else:
        assert cfg.train_cfg.max_epochs == (20 if is_semi(path) else 12)
    backbone = cfg.model.backbone
    if kind(path) != 'alexnet':
        assert backbone.type == 'ResNet'
        assert backbone.depth == kind(path)
        assert backbone.style == 'pytorch'
        assert backbone.get('frozen_stages', -1) == -1
        assert backbone.get('norm_eval', False) is False
    crop = re.search(r'-(\d+)x(\d+)$', path.stem)
    if crop:
        size = (int(crop[1]), int(crop[2]))
        assert cfg.model.data_preprocessor.size == size
        assert cfg.model.pretrained is None
        stride = int(re.search(r'_r\d+-d(\d+)_', path.stem)[1])
        assert 2 * 2 * np.prod(backbone.strides) == stride
        assert stride * backbone.dilations[-1] == 32
        for pipeline in training_pipelines(cfg):
            steps = {step.type: step for step in pipeline}
            assert steps['RandomCrop'].crop_size == size
            if 'Pad' in steps:
                assert steps['Pad'].size == size


def training_pipelines(cfg):
    dataset = cfg.train_dataloader.dataset
    return [one.pipeline for one in dataset.get('datasets', [dataset])]


def rates(cfg, epoch):
    """The rate of each step, by the engine's own schedulers."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    settings = cfg.param_scheduler
    settings = settings if isinstance(settings, list) else [settings]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        schedulers = [
            PARAM_SCHEDULERS.build(dict(one, optimizer=optimizer))
            for one in settings
        ]
    steps = cfg.train_cfg.get('max_iters') or cfg.train_cfg.max_epochs * epoch
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (step + 1) % epoch == 0:
                scheduler.step()
    return found


@pytest.mark.parametrize(
    ('part', 'warmup', 'table', 'decay'),
    [
        # steps, here 600 an epoch: up to which, at which rate
        ('coco/', 500, [(4800, 0.02), (6600, 2e-3), (7200, 2e-4)], 1e-4),
        ('voc0712/', 100, [(18000, 0.02), (22000, 2e-3), (24000, 2e-4)], 1e-4),
        ('-513x513', 0, [(21000, 3e-3), (27000, 3e-4), (30000, 3e-5)], 1e-4),
        ('-90k_', 0, [(63000, 0.01), (81000, 1e-3), (90000, 1e-4)], 1e-4),
        (
            'alexnet',
            0,
            [(20000, 1e-3), (40000, 1e-4), (60000, 1e-5), (80000, 1e-6)],
            1e-4,
        ),
    ],
)
@pytest.mark.downstream
def test_rates(part, warmup, table, decay):
    paths = [path for path in MAINS if part in str(path)]
    seen = []
    for path in paths:
        cfg = read_only(path)
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
        assert optimizer.weight_decay == decay
        settings = (cfg.param_scheduler, optimizer, cfg.train_cfg)
        if settings in seen:
            continue
        seen.append(settings)
        found = rates(cfg, 600)
        assert len(found) == table[-1][0]
        if warmup:
            assert found[0] == pytest.approx(table[0][1] / 1000)
            assert np.all(np.diff(found[:warmup]) > 0)
        expected = []
        for end, rate in table:
            expected += [rate] * (end - len(expected))
        np.testing.assert_allclose(found[warmup:], expected[warmup:], 1e-6)
    assert paths
    # the models of a benchmark share their schedule
    assert len(seen) == 1


@pytest.mark.parametrize(
    ('share', 'rate', 'rate_of_head'), [('1', 0.02, 5), ('10', 0.01, 0.2)]
)
def test_few_labels_as_by_swav(share, rate, rate_of_head):
    (path,) = (p for p in MAINS if p.stem.endswith(f'-{share}percent'))
    cfg = read_only(path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({**cfg.model, 'backbone': dict(type='LeNet5')})
        model.backbone.register_parameter('p', nn.Parameter(torch.ones(1)))
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(value): name for name, value in model.named_parameters()}
    # the engine adds a group of its own, for the scheduler
    groups = [g for g in wrapper.param_groups if id(g['params'][0]) in names]
    assert len(groups) == len(names) > 3
    for group in groups:
        assert (group['momentum'], group['weight_decay']) == (0.9, 0)
        in_head = names[id(group['params'][0])].startswith('head.')
        assert group['lr'] == pytest.approx(rate_of_head if in_head else rate)
    shares = np.array(rates(cfg, 3)) / rate
    want = np.repeat([1, 0.2, 0.04], [36, 12, 12])
    np.testing.assert_allclose(shares, want, 1e-6)
    dataset = cfg.train_dataloader.dataset
    assert dataset.ann_file == f'meta/train_{share}percent.txt'
    assert dataset.split == 'train'
    assert 'ann_file' not in cfg.val_dataloader.dataset


def test_lists_of_few_labels(tmp_path):
    """As the command of the page makes them."""
    page = (ROOT / 'README.md').read_text(encoding='utf-8')
    (command,) = re.findall(r'^ls data(?:.*\\\n)*.*$', page, re.MULTILINE)
    data = tmp_path / 'data/imagenet'
    for name in ('n01', 'n02', 'n10'):
        (data / 'train' / name).mkdir(parents=True)
    (data / 'meta').mkdir()
    (tmp_path / '1percent.txt').write_text('n10_7.JPEG\nn01_12.JPEG\n')
    subprocess.run(['bash', '-c', command], cwd=tmp_path, check=True)
    assert (data / 'meta/train_1percent.txt').read_text() == (
        'n10/n10_7.JPEG 2\nn01/n01_12.JPEG 0\n'
    )


@pytest.mark.parametrize('path', of('mmdetection'))
def test_scales_and_images_of_detectors(path):
    cfg = read_only(path)
    least = 480 if 'voc' in path.stem else 640
    sides = [(1333, side) for side in range(least, 801, 32)]
    assert sides[-1] == (1333, 800)
    for pipeline in training_pipelines(cfg):
        steps = {step.type: step for step in pipeline}
        assert steps['RandomChoiceResize'].scales == sides
        assert steps['RandomChoiceResize'].keep_ratio
        assert steps['RandomFlip'].prob == 0.5
        masks = steps['LoadAnnotations'].get('with_mask', False)
        assert masks == ('mask' in path.stem)
        assert 'Resize' not in steps
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        (resize,) = [
            step for step in loader.dataset.pipeline if step.type == 'Resize'
        ]
        assert resize.scale == (1333, 800)
    # as mmpretrain's recipes prepare images: the usual mean and standard
    # deviation, in the order red, green, blue
    data = cfg.model.data_preprocessor
    assert data.mean == [123.675, 116.28, 103.53]
    assert data.std == [58.395, 57.12, 57.375]
    assert data.bgr_to_rgb is True
    assert data.get('pad_mask', False) == ('mask' in path.stem)
    classes = 20 if 'voc' in path.stem else 80
    assert cfg.model.roi_head.bbox_head.num_classes == classes


@pytest.mark.downstream
@pytest.mark.parametrize('path', of('voc0712/'))
def test_years_of_the_detectors_of_voc(path):
    cfg = read_only(path)
    lists = [one.ann_file for one in cfg.train_dataloader.dataset.datasets]
    folders = [
        one.data_prefix.sub_data_root
        for one in cfg.train_dataloader.dataset.datasets
    ]
    assert folders == ['VOC2007/', 'VOC2012/']
    assert lists == [f'{f}ImageSets/Main/trainval.txt' for f in folders]
    for one in cfg.train_dataloader.dataset.datasets:
        # small boxes count
        assert one.filter_cfg == dict(filter_empty_gt=True, min_size=32)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.ann_file == 'VOC2007/ImageSets/Main/test.txt'
        assert loader.dataset.data_prefix.sub_data_root == 'VOC2007/'
    assert cfg.val_evaluator == cfg.test_evaluator


@pytest.mark.downstream
def test_precision_of_the_detectors_of_voc():
    """AP is mAP, the mean over ten thresholds, in two ways of averaging."""
    cfg = read_only(
        ROOT / 'mmdetection/voc0712/faster-rcnn_r18_fpn_8xb2-ms-24k_voc0712.py'
    )
    # The rules of VOC count pixels, so boxes of 100 x 100; detected are 72 of
    # 100 columns of each, and between the two a wrong one.
    truth = [[0.0, 0, 99, 99], [200, 0, 299, 99]]
    boxes = [[0.0, 0, 71, 99], [400, 0, 499, 99], [200, 0, 271, 99]]
    none = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    sample = dict(
        gt_instances=dict(
            bboxes=torch.tensor(truth), labels=torch.tensor([4, 4])
        ),
        ignored_instances=none,
        pred_instances=dict(
            bboxes=torch.tensor(boxes),
            scores=torch.tensor([0.9, 0.8, 0.7]),
            labels=torch.tensor([4, 4, 4]),
        ),
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        evaluator = Evaluator(cfg.val_evaluator)
    names = [f'class {number}' for number in range(20)]
    evaluator.dataset_meta = dict(classes=names, dataset_type='VOC2012')
    evaluator.process([sample])
    found = evaluator.evaluate(1)
    # precision 1 up to a recall of a half, then 2/3
    precision = {'area': (1 + 2 / 3) / 2, '11points': (6 + 5 * 2 / 3) / 11}
    expected = {}
    for way, value in precision.items():
        expected[f'{way}/mAP'] = value / 2
        for percent in range(50, 100, 5):
            expected[f'{way}/AP{percent}'] = value if percent <= 70 else 0
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # the single ones are rounded
        assert found[name] == pytest.approx(value, abs=6e-4), name


@pytest.mark.parametrize('path', of('fcn-d6'))
def test_head_and_images_of_moco_segmentation(path):
    cfg = read_only(path)
    backbone = cfg.model.backbone
    assert backbone.strides == (1, 2, 2, 1)
    assert backbone.dilations == (1, 1, 1, 2)
    head = cfg.model.decode_head
    assert cfg.model.auxiliary_head is None
    with DefaultScope.overwrite_default_scope('mmseg'):
        network = MODELS.build(head)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert {
        (m.in_channels, m.out_channels, m.kernel_size, m.dilation)
        for m in convolutions
    } == {
        (2048, 256, (3, 3), (6, 6)),
        (256, 256, (3, 3), (6, 6)),
        (256, 21 if 'voc' in path.stem else 19, (1, 1), (1, 1)),
    }
    assert len(convolutions) == 3
    with DefaultScope.overwrite_default_scope('mmseg'):
        network = MODELS.build(dict(backbone, norm_cfg=dict(type='BN')))
    last = [
        (m.dilation, m.stride)
        for m in network.layer4.modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    assert last == 3 * [((2, 2), (1, 1))]

    shape = (375, 500) if 'voc' in path.stem else (1024, 2048)
    image = np.zeros((*shape, 3), np.uint8)
    for pipeline in training_pipelines(cfg):
        kinds = [step.type for step in pipeline]
        assert 'PhotoMetricDistortion' not in kinds
        (scaling,) = [step for step in pipeline if step.type == 'RandomResize']
        assert scaling.ratio_range == (0.5, 2.0)
        (flip,) = [step for step in pipeline if step.type == 'RandomFlip']
        assert flip.prob == 0.5
        # ratios are those to the image's own size
        for ratio in (0.5, 1, 2):
            with DefaultScope.overwrite_default_scope('mmseg'):
                resize = TRANSFORMS.build(
                    dict(scaling, ratio_range=(ratio, ratio))
                )
            result = resize(dict(img=image, img_shape=shape))
            assert result['img'].shape[:2] == tuple(
                int(side * ratio + 0.5) for side in shape
            )
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        kinds = [step.type for step in loader.dataset.pipeline]
        assert kinds == [
            'LoadImageFromFile',
            'LoadAnnotations',
            'PackSegInputs',
        ]
    assert cfg.model.test_cfg == dict(mode='whole')


@pytest.mark.parametrize('path', of('voc12aug/'))
def test_lists_of_the_extra_annotations(path):
    cfg = read_only(path)
    found = {
        (Path(one.ann_file).stem, one.data_prefix.seg_map_path)
        for one in cfg.train_dataloader.dataset.datasets
    }
    assert found == {
        ('train', 'SegmentationClass'),
        ('aug', 'SegmentationClassAug'),
    }
    assert Path(cfg.val_dataloader.dataset.ann_file).stem == 'val'
    for name in ('decode_head', 'auxiliary_head'):
        if cfg.model.get(name):
            assert cfg.model[name].num_classes == 21


def test_lists_of_voc_classification():
    cfg = read_only(ROOT / 'mmpretrain/alexnet-bn_1xb16-80k_voc07-cls.py')
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    assert [loader.dataset.split for loader in loaders] == [
        'trainval',
        'test',
        'test',
    ]
    for loader in loaders:
        assert loader.dataset.data_root == 'data/VOCdevkit/VOC2007'
    # what the first linear layer is made for
    size = MODELS.build(cfg.model.backbone).input_size
    (crop,) = [
        step.scale
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type == 'RandomResizedCrop'
    ]
    assert crop == size
    assert cfg.test_dataloader.dataset.pipeline[2].crop_size == size
    kinds = {metric.type for metric in cfg.val_evaluator}
    assert kinds == {'VOCMultiLabelMetric', 'VOCAveragePrecision'}


# --- traps ------------------------------------------------------------------


def only_backbone(cfg, file, **settings):
    init_cfg = dict(type='Pretrained', checkpoint=str(file), **settings)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=init_cfg))
    return nn.ModuleDict({'backbone': backbone})


HOOK = [dict(type='mm_rotssl.PretrainedCheckHook')]


@pytest.mark.downstream
def test_bare_config_of_mmseg_is_refused(weights_of, tmp_path):
    """Its stem is of three convolutions, which no checkpoint has."""
    file, weights = weights_of(18)
    (tmp_path / 'cfg.py').write_text(
        "_base_ = 'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-769x769.py'\n"
    )
    model = only_backbone(read_config(tmp_path / 'cfg.py'), file)
    # without the hook nobody would be told
    model['backbone'].init_weights()
    lost = model['backbone'].state_dict().keys() - weights.keys()
    assert 'stem.0.weight' in lost
    assert all(name.startswith('stem.') for name in lost)
    model = only_backbone(read_config(tmp_path / 'cfg.py'), file)
    with pytest.raises(ValueError, match='missing') as error:
        run_checks(HOOK, model)
    message = str(error.value)
    for name in lost:
        if not name.endswith('num_batches_tracked'):
            assert f'missing: {name}\n' in message
    assert 'missing: layer1.0.conv1.weight' not in message


@pytest.mark.downstream
def test_last_stage_of_c4_is_random_without_its_own_file(weights_of):
    file, weights = weights_of(50)
    path = ROOT / 'mmdetection/coco/mask-rcnn_r50-c4_8xb2-ms-1x_coco.py'
    cfg = read(path, file)
    heads = []
    for init_cfg in (cfg.model.roi_head.shared_head.init_cfg, None):
        settings = dict(cfg.model.roi_head.shared_head, init_cfg=init_cfg)
        with DefaultScope.overwrite_default_scope('mmdet'):
            head = MODELS.build(settings)
            head.init_weights()
        heads.append(head.state_dict())
    assert sum(name.startswith('layer4.') for name in heads[0]) == 60
    for name in heads[0]:
        if name.startswith('layer4.'):
            assert torch.equal(heads[0][name], weights[name])
            assert not torch.equal(heads[1][name], weights[name])


@pytest.mark.downstream
def test_stock_c4_is_refused_until_all_of_it_is_set(weights_of, tmp_path):
    """Strides, images and the last stage are others, and each is named."""
    _, weights = weights_of(50)
    file = tmp_path / 'exported.pth'
    facts = dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        channels='rgb',
        style='pytorch',
    )
    torch.save(attach_facts(weights, facts), file)
    (tmp_path / 'stock.py').write_text(
        "_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py'\n"
    )
    init_cfg = dict(type='Pretrained', checkpoint=str(file))
    cfg = read_config(
        tmp_path / 'stock.py', {'model.backbone.init_cfg': init_cfg}
    )

    def check():
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(cfg.model)
        run_checks(HOOK, model, cfg)

    with pytest.raises(ValueError, match=r"backbone.* has style='caffe'"):
        check()
    cfg.model.backbone.style = 'pytorch'
    with pytest.raises(ValueError, match='channels=rgb there, bgr here'):
        check()
    cfg.model.data_preprocessor.update(
        mean=facts['mean'], std=facts['std'], bgr_to_rgb=True
    )
    with pytest.raises(
        ValueError, match=r'60 tensors for model\.roi_head\.shared_head, which'
    ):
        check()
    cfg.model.roi_head.shared_head.init_cfg = init_cfg
    with pytest.raises(ValueError, match=r"shared_head.* has style='caffe'"):
        check()
    cfg.model.roi_head.shared_head.style = 'pytorch'
    check()


@pytest.mark.downstream
def test_a_prefix_for_a_file_without_is_refused(weights_of):
    file, _ = weights_of(18)
    path = ROOT / 'mmdetection/coco/mask-rcnn_r18_fpn_8xb2-ms-1x_coco.py'
    model = only_backbone(read(path, file), file, prefix='backbone.')
    with pytest.raises(ValueError, match=r'missing: backbone\.conv1\.weight'):
        run_checks(HOOK, model)
    # the engine alone does not go on either
    with pytest.raises(AssertionError):
        model['backbone'].init_weights()


@pytest.mark.downstream
def test_only_the_extra_normalization_of_c4_may_be_missing(weights_of):
    file, weights = weights_of(50)
    path = (
        ROOT / 'mmdetection/voc0712/faster-rcnn_r50-c4_8xb2-ms-24k_voc0712.py'
    )
    poorer = {k: v for k, v in weights.items() if k != 'layer4.2.bn3.weight'}
    torch.save(poorer, file.parent / 'poorer.pth')
    cfg = read(path, file.parent / 'poorer.pth')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    with pytest.raises(ValueError, match='missing') as error:
        run_checks(cfg.custom_hooks, model)
    assert re.findall(r'missing: (\S+)', str(error.value)) == [
        'layer4.2.bn3.weight'
    ]
