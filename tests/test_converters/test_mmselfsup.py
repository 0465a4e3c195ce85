import errno
from collections import Counter, OrderedDict
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
import torchvision
from helpers import Harmful
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS

from mm_rotssl.converters import mmselfsup
from mm_rotssl.converters.mmselfsup import (
    convert_checkpoint_file,
    convert_config_file,
)
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import read_checkpoint

ROOT = Path(__file__).parents[2]

CONFIG = """
dataset_type = 'mmcls.ImageNet'
model = dict(
    type='RotationPred',
    data_preprocessor=dict(
        type='mmselfsup.RotationPredDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        type='ResNet', depth=18, in_channels=3, out_indices=[4],
        norm_cfg=dict(type='BN')),
    head=dict(
        type='ClsHead',
        loss=dict(type='mmcls.CrossEntropyLoss'),
        with_avg_pool=True,
        in_channels=512,
        num_classes=4))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', size=64, scale=(0.3, 1.0),
         backend='pillow'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RotationWithLabels'),
    dict(type='PackSelfSupInputs', key='img',
         pseudo_label_keys=['rot_label'], meta_keys=['img_path']),
]
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        type=dataset_type,
        data_root='data/imagenet/',
        ann_file='meta/train.txt',
        data_prefix=dict(img_path='train/'),
        pipeline=train_pipeline))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=5,
         convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[30, 50], gamma=0.1),
]
visualizer = dict(type='SelfSupVisualizer', name='visualizer')
default_scope = 'mmselfsup'
custom_imports = dict(imports=['mmselfsup_is_not_here'])
"""


@pytest.fixture
def theirs(tmp_path):
    """The config above, read."""
    (tmp_path / 'config.py').write_text(CONFIG)
    return Config.fromfile(tmp_path / 'config.py', import_custom_modules=False)


def original_weights(prefix=''):
    """Weights named as mmselfsup names them, by torchvision's ResNet."""
    torch.manual_seed(0)
    backbone = torchvision.models.resnet18(num_classes=4)
    for name, buffer in backbone.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
    weights = {}
    for name, value in backbone.state_dict().items():
        theirs = (
            name.replace('fc.', 'head.fc_cls.')
            if name.startswith('fc.')
            else f'backbone.{name}'
        )
        weights[prefix + theirs] = value
    return backbone.eval(), weights


def save(weights, path):
    meta = dict(mmengine_version='0.7.3')
    torch.save(dict(meta=meta, state_dict=weights), path)


def rotnet(depth=18, channels=512):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='mm_rotssl.RotNet',
                backbone=dict(type='ResNet', depth=depth),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='mm_rotssl.RotationHead', in_channels=channels),
            )
        ).eval()


# --- checkpoints ------------------------------------------------------------


def rotated_by_0x(image):
    """The four copies of 0.x, in the order of their labels."""
    transposed = image.transpose(1, 0, 2)
    return [
        image,
        transposed[::-1],
        image[::-1, ::-1],
        image[::-1].transpose(1, 0, 2),
    ]


def rotated_by_1x(image):
    """The four copies of 1.x, in the order of their labels."""
    return [mmcv.imrotate(image, 90 * label) for label in range(4)]


@pytest.mark.parametrize(
    ('prefix', 'meta', 'rotated', 'labels', 'version'),
    [
        ('', {'mmengine_version': '0.1'}, rotated_by_1x, [0, 3, 2, 1], None),
        ('module.', {'mmcv_version': '1'}, rotated_by_0x, [0, 1, 2, 3], None),
        ('', {'mmselfsup_version': '0'}, rotated_by_0x, [0, 1, 2, 3], None),
        ('', {}, rotated_by_1x, [0, 3, 2, 1], '1.x'),
        (
            *('', {'mmengine_version': '0.1'}, rotated_by_0x),
            *([0, 1, 2, 3], '0.x'),
        ),
    ],
)
def test_each_angle_keeps_its_probability(
    tmp_path, prefix, meta, rotated, labels, version
):
    original, weights = original_weights(prefix)
    torch.save(
        dict(meta=meta, state_dict=weights, optimizer=dict(lr=1)),
        tmp_path / 'theirs.pth',
    )
    convert_checkpoint_file(
        tmp_path / 'theirs.pth', tmp_path / 'ours.pth', version
    )
    converted = torch.load(tmp_path / 'ours.pth', weights_only=True)
    assert set(converted) == {'meta', 'state_dict'}
    assert set(converted['meta']) == {'converted_from'}
    ours = rotnet()
    ours.load_state_dict(converted['state_dict'], strict=True)

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def batch(images):
        stack = np.ascontiguousarray(np.stack(images))
        return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255

    # what the original was trained to answer `label` to
    meant = rotated(image)
    with torch.no_grad():
        theirs = original(batch(meant)).softmax(1).numpy()
        (sample,) = ours.predict(batch([image]))
    scores = sample.rotation_scores.numpy()
    # the original's label of each of our angles, by looking at the images
    label_of = [
        next(
            label
            for label in range(4)
            if np.array_equal(np.rot90(image, k), meant[label])
        )
        for k in range(4)
    ]
    assert label_of == labels
    assert np.ptp(theirs, axis=1).min() > 0.01
    for copy in range(4):
        for answer in range(4):
            np.testing.assert_allclose(
                scores[copy, answer],
                theirs[label_of[copy], label_of[answer]],
                rtol=1e-4,
            )


def test_takes_bare_weights(tmp_path):
    _, weights = original_weights()
    torch.save(weights, tmp_path / 'in.pth')
    convert_checkpoint_file(
        str(tmp_path / 'in.pth'), str(tmp_path / 'out.pth'), '1.x'
    )
    converted = torch.load(tmp_path / 'out.pth', weights_only=True)
    theirs = weights['head.fc_cls.bias'].tolist()
    assert converted['state_dict']['head.fc.bias'].tolist() == [
        theirs[label] for label in (0, 3, 2, 1)
    ]


def test_asks_for_the_version(tmp_path):
    torch.save(
        dict(meta=dict(epoch=3), state_dict=original_weights()[1]),
        tmp_path / 'in.pth',
    )
    with pytest.raises(ValueError, match=r'--from-version 0\.x or 1\.x'):
        convert_checkpoint_file(tmp_path / 'in.pth', tmp_path / 'out.pth')


def test_names_and_shapes_of_resnet50():
    with torch.device('meta'):
        theirs = torchvision.models.resnet50(num_classes=4).state_dict()
    ours = rotnet(50, 2048).state_dict()
    converted = mmselfsup.convert_state_dict(
        {
            f'backbone.{name}'.replace('backbone.fc.', 'head.fc_cls.'): value
            for name, value in theirs.items()
        },
        '1.x',
    )
    assert {name: value.shape for name, value in converted.items()} == {
        name: value.shape for name, value in ours.items()
    }


def without(weights, *names):
    return {k: v for k, v in weights.items() if k not in names}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: {**w, 'neck.fc.bias': w['head.fc_cls.bias']}, 'neck.fc.b'),
        (lambda w: without(w, 'head.fc_cls.bias'), 'head.fc_cls.bias'),
        (
            lambda w: {k: v for k, v in w.items() if k.startswith('head.')},
            r'Missing keys: backbone\.\*',
        ),
        (
            lambda w: {
                **w,
                'head.fc_cls.weight': torch.zeros(1000, 512),
                'head.fc_cls.bias': torch.zeros(1000),
            },
            r'\(1000, 512\)',
        ),
        (
            lambda w: {**w, 'head.fc_cls.weight': torch.zeros(4, 512, 1)},
            r'\(4, 512, 1\)',
        ),
        (
            lambda w: {**w, 'head.fc_cls.weight': torch.zeros(8, 512)},
            r'\(8, 512\)',
        ),
        (lambda w: {**w, 'head.fc_cls.bias': torch.zeros(5)}, r'\(5,\)'),
        (lambda w: {**w, 'epoch': 3}, 'Not tensors: epoch'),
        (lambda w: mmselfsup.convert_state_dict(w, '1.x'), r'head\.fc\.w'),
    ],
)
def test_refuses_other_weights(tmp_path, change, message):
    _, weights = original_weights()
    save(change(weights), tmp_path / 'in.pth')
    with pytest.raises(ValueError, match=message):
        convert_checkpoint_file(tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


def test_reads_past_training_logs(tmp_path):
    _, weights = original_weights()
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    history.update(3.0)
    checkpoint = dict(
        meta=dict(mmengine_version='0.7.3', best=np.float64(3)),
        message_hub=dict(log_scalars=OrderedDict(loss=history)),
        param_schedulers=[dict(milestones=Counter([30, 50]))],
        state_dict=OrderedDict(weights),
    )
    torch.save(checkpoint, tmp_path / 'new.pth')
    # the sequential format can be edited: names as NumPy 1 wrote them
    torch.save(
        checkpoint,
        tmp_path / 'old.pth',
        _use_new_zipfile_serialization=False,
    )
    content = (tmp_path / 'old.pth').read_bytes()
    content = content.replace(b'cnumpy._core.', b'cnumpy.core.')
    assert content.count(b'cnumpy.core.') == 2
    (tmp_path / 'old.pth').write_bytes(content)

    for name in ('new.pth', 'old.pth'):
        read = read_checkpoint(tmp_path / name)
        loss = read['message_hub']['log_scalars']['loss']
        assert loss.data[0].tolist() == [1, 2, 3]
        converted = mmselfsup.convert_checkpoint(read)['state_dict']
        torch.testing.assert_close(
            converted['head.fc.weight'],
            weights['head.fc_cls.weight'].flip(0).roll(1, 0),
        )


def test_runs_no_code_of_a_file(tmp_path):
    _, weights = original_weights()
    torch.save(
        dict(state_dict=weights, meta=Harmful(tmp_path / 'harm')),
        tmp_path / 'in.pth',
    )
    with pytest.raises(ValueError, match=r'mkdir.*state_dict'):
        convert_checkpoint_file(tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'harm').exists()


@pytest.mark.parametrize(
    'content', [b'', b'a text\n', b'PK\x03\x04', b'\x80\x02.', bytes(1000)]
)
def test_refuses_files_of_other_kinds(tmp_path, content):
    (tmp_path / 'in.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'in\.pth.*damaged'):
        convert_checkpoint_file(tmp_path / 'in.pth', tmp_path / 'out.pth')


def test_refuses_a_list_and_a_missing_file(tmp_path):
    torch.save([torch.ones(2)], tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='holds a list'):
        convert_checkpoint_file(tmp_path / 'in.pth', tmp_path / 'out.pth')
    with pytest.raises(FileNotFoundError, match=r'no\.pth.*not exist'):
        convert_checkpoint_file(tmp_path / 'no.pth', tmp_path / 'out.pth')


def test_keeps_the_input(tmp_path, monkeypatch):
    source = tmp_path / 'in.pth'
    save(original_weights()[1], source)
    content = source.read_bytes()
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'link.pth').symlink_to(source)
    for target in ('in.pth', 'link.pth'):
        for convert in (convert_checkpoint_file, convert_config_file):
            with pytest.raises(ValueError, match='is the input'):
                convert(source, target)
    assert source.read_bytes() == content


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    save(original_weights()[1], tmp_path / 'in.pth')
    (tmp_path / 'out.pth').write_bytes(b'of before')

    def fail(path, content):
        with open(path, 'wb') as file:
            file.write(content[:9])
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', fail)
    with pytest.raises(OSError, match=r'out\.pth" .*No space left'):
        convert_checkpoint_file(tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert (tmp_path / 'out.pth').read_bytes() == b'of before'
    assert {p.name for p in tmp_path.iterdir()} == {'in.pth', 'out.pth'}


# --- configs ----------------------------------------------------------------


def test_converted_config_trains(tmp_path):
    (tmp_path / 'theirs.py').write_text(CONFIG)
    remarks = convert_config_file(tmp_path / 'theirs.py', tmp_path / 'ours.py')
    assert remarks == [
        'custom_imports names mmselfsup: without it, remove it.'
    ]
    cfg = Config.fromfile(tmp_path / 'ours.py', import_custom_modules=False)

    root = tmp_path / 'imagenet'
    (root / 'meta').mkdir(parents=True)
    (root / 'train').mkdir()
    (root / 'meta/train.txt').write_text('a.png 0\nb.png 1\n')
    rng = np.random.default_rng(0)
    for name in 'ab':
        image = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f'train/{name}.png'), image)
    cfg.train_dataloader.dataset.data_root = str(root)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        model = MODELS.build(cfg.model)
    items = [dataset[i] for i in range(2)]
    assert items[0]['inputs'].shape == (3, 64, 64)
    data = model.data_preprocessor(
        dict(
            inputs=torch.stack([item['inputs'] for item in items]),
            data_samples=[item['data_samples'] for item in items],
        ),
        True,
    )
    raw = items[0]['inputs'].double()
    mean = torch.tensor([123.675, 116.28, 103.53]).double()
    std = torch.tensor([58.395, 57.12, 57.375]).double()
    torch.testing.assert_close(
        data['inputs'][0].double(),
        (raw.flip(0) - mean.view(3, 1, 1)) / std.view(3, 1, 1),
        rtol=1e-5,
        atol=1e-5,
    )
    losses = model(data['inputs'], data['data_samples'], mode='loss')
    assert 0 < losses['loss'].item() < 10
    # the last stage, as in the original, and its initialization
    model.init_weights()
    assert model(data['inputs'])[0].shape == (2, 512, 2, 2)
    assert 0.008 < model.head.fc.weight.std().item() < 0.012
    assert (model.backbone.layer1[0].norm2.weight == 1).all()


def test_config_keeps_what_is_not_the_models(theirs):
    before = theirs.to_dict()
    mmselfsup.convert_config(before)
    assert theirs.to_dict() == before
    ours, remarks = mmselfsup.convert_config(theirs)
    assert theirs.to_dict() == before
    assert len(remarks) == 1
    assert 'custom_imports' in remarks[0]
    assert ours.param_scheduler == theirs.param_scheduler
    assert ours.default_scope == 'mmpretrain'
    assert ours.visualizer.type == 'UniversalVisualizer'
    assert ours.model.backbone.out_indices == [3]
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(
            type='RandomResizedCrop',
            scale=64,
            crop_ratio_range=(0.3, 1.0),
            backend='pillow',
        ),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs', input_key='img', meta_keys=['img_path']),
    ]
    assert ours.train_pipeline == pipeline
    dataset = ours.train_dataloader.dataset
    assert dataset.type == 'ImageNet'
    assert dataset.pipeline == pipeline


def test_config_with_wrappers_and_settings(theirs):
    theirs.model.data_preprocessor = None
    theirs.data_preprocessor = dict(
        type='RotationPredDataPreprocessor', mean=[0], std=[1]
    )
    theirs.model.head.loss = dict(
        type='mmcls.LabelSmoothLoss', label_smooth_val=0.1
    )
    theirs.model.head.init_cfg = dict(type='Constant', val=0, layer='Linear')
    theirs.model.backbone = dict(
        type='mmcls.ResNet', depth=18, out_indices=(3,)
    )
    inner = theirs.train_dataloader.dataset
    inner.pipeline[2] = dict(
        type='RandomApply',
        transforms=[dict(type='RandomCrop', size=8), dict(type='Nowhere')],
    )
    inner.pipeline[-1].pseudo_label_keys = ['rot_label', 'other']
    theirs.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=inner
    )
    theirs.custom_hooks = [dict(type='SelfSupVisualizationHook')]
    theirs.load_from = 'old.pth'
    del theirs.model['data_preprocessor']
    ours, remarks = mmselfsup.convert_config(theirs)
    assert ours.data_preprocessor.type == 'SelfSupDataPreprocessor'
    assert ours.model.head.loss == dict(
        type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1
    )
    assert ours.model.head.init_cfg.type == 'Constant'
    assert ours.model.backbone == dict(
        type='ResNet', depth=18, out_indices=(3,)
    )
    inner = ours.train_dataloader.dataset.dataset
    assert inner.pipeline[2].transforms[0].crop_size == 8
    assert inner.pipeline[-1].algorithm_keys == ['other']
    place = 'train_dataloader.dataset.dataset.pipeline[2].transforms[1]'
    hits = [r for r in remarks if r.startswith(place) and 'Nowhere' in r]
    assert len(hits) == 1
    assert any('SelfSupVisualizationHook' in remark for remark in remarks)
    assert any('old.pth' in remark for remark in remarks)


def test_config_arguments_of_other_meaning_are_remarked(theirs):
    theirs.train_pipeline.insert(1, dict(type='CenterCrop', size=8))
    _, remarks = mmselfsup.convert_config(theirs)
    (remark,) = (r for r in remarks if 'custom_imports' not in r)
    assert remark.startswith('train_pipeline[1]: CenterCrop')
    assert 'size' in remark


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(model=dict(type='SimCLR')), 'SimCLR'),
        ({'model.backbone.type': 'ResNetSobel'}, 'ResNetSobel'),
        ({'model.backbone.out_indices': [0]}, 'stem'),
        ({'model.head.num_classes': 1000}, 'num_classes=1000'),
        ({'model.head.with_avg_pool': False}, 'with_avg_pool=False'),
        ({'model.head.vit_backbone': True}, 'vit_backbone=True'),
        ({'model.head.type': 'OtherHead'}, 'OtherHead'),
        ({'model.neck': dict(type='ODCNeck')}, 'ODCNeck'),
        ({'model.data_preprocessor.type': 'Other'}, "'Other'"),
        ({'data': dict(train={})}, r'0\.x'),
    ],
)
def test_refuses_configs_without_counterpart(
    theirs, tmp_path, changes, message
):
    theirs.merge_from_dict(changes)
    theirs.dump(tmp_path / 'in.py')
    with pytest.raises(ValueError, match=message):
        convert_config_file(tmp_path / 'in.py', tmp_path / 'out.py')
    assert not (tmp_path / 'out.py').exists()


def test_lists_all_that_has_no_counterpart(theirs):
    theirs.model.backbone.type = 'A'
    theirs.model.head.num_classes = 8
    with pytest.raises(ValueError, match=r"(?s)'A'.*num_classes=8"):
        mmselfsup.convert_config(theirs)


# --- the page ---------------------------------------------------------------


def table(first_cell):
    """Rows of the page's table whose header begins so."""
    page = (ROOT / 'docs/migration_from_mmselfsup.md').read_text()
    rows = []
    lines = iter(page.splitlines())
    for line in lines:
        if line.startswith(f'| {first_cell} |'):
            next(lines)
            for row in lines:
                if not row.startswith('|'):
                    return rows
                cells = [c.strip().strip('`') for c in row.split('|')[1:-1]]
                rows.append(tuple(cells))
    return rows


def test_page_lists_the_names_of_weights():
    assert [row[:2] for row in table('Checkpoint of mmselfsup')] == list(
        mmselfsup.CHECKPOINT_KEYS.items()
    )


def test_page_lists_the_labels():
    assert table('Counter-clockwise') == [
        (
            f'{90 * k}°',
            *(str(theirs[k]) for theirs in mmselfsup.LABELS.values()),
            str(k),
        )
        for k in range(4)
    ]


def test_page_lists_the_types_and_arguments():
    assert [row[:2] for row in table('Type in mmselfsup')] == [
        (theirs, ours or 'removed')
        for theirs, ours in mmselfsup.CONFIG_TYPES.items()
    ]
    assert table('Transform') == [
        (transform, theirs, ours)
        for transform, names in mmselfsup.CONFIG_ARGUMENTS.items()
        for theirs, ours in names.items()
    ]
