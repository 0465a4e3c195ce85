import errno
import importlib
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from helpers import Harmful
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from torch.nn import functional as F

from mm_rotssl.apis import read_config
from mm_rotssl.converters import backbone as converter
from mm_rotssl.converters.backbone import export_backbone
from mm_rotssl.converters.libraries import describe_blocks, describe_images
from mm_rotssl.engine import PretrainedCheckHook
from mm_rotssl.registry import MODELS
from mm_rotssl.utils import preprocessing_of, read_facts, read_weights

CONFIG = """
model = dict(
    type='mm_rotssl.RotNet',
    backbone=dict({backbone}),
    head=dict(type='mm_rotssl.RotationHead', in_channels=512))
data_preprocessor = dict(mean=[1.5, 2.5, 3.5], std=[4, 5, 6], to_rgb=True)
"""
RESNET18 = "type='ResNet', depth=18, norm_cfg=dict(type='SyncBN')"
# which only mmpretrain takes
SMALL = "type='ResNet', depth=18, base_channels=4, stem_channels=4"
SUFFIXES = ['.pth', '.safetensors']


@pytest.fixture(scope='module')
def original():
    """torchvision's ResNet-18 with the statistics of nothing in particular."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4)
    for name, value in network.state_dict().items():
        if name.endswith('running_mean') or '.bias' in name:
            value.normal_(std=0.2)
        elif name.endswith('running_var') or value.shape == (1,):
            value.uniform_(0.5, 2)
        elif name.endswith('num_batches_tracked'):
            value.fill_(7)
        elif value.dim() == 1:
            value.uniform_(0.5, 1.5)
    return network.eval()


def build(backbone):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(eval(f'dict({backbone})'))


@pytest.fixture(scope='module')
def small():
    """Weights of a narrow ResNet."""
    return build(SMALL).state_dict()


@pytest.fixture(scope='module')
def image():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def stages(network, x):
    """Features of a ResNet, by whose names all but detectron2 agree."""
    network.eval()
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    found = []
    for number in range(1, 5):
        x = getattr(network, f'layer{number}')(x)
        found.append(x)
    return found


@pytest.fixture(scope='module')
def expected(original, image):
    return stages(original, image)


def bare(original):
    return {
        name: value.clone()
        for name, value in original.state_dict().items()
        if not name.startswith('fc.')
    }


def training_checkpoint(weights, prefix='backbone.'):
    """As the engine saves it."""
    state = {prefix + name: value for name, value in weights.items()}
    state[f'{prefix.removesuffix("backbone.")}head.fc.bias'] = torch.ones(4)
    state['backbone_of_a_teacher.conv1.weight'] = torch.ones(1)
    return dict(meta=dict(epoch=3), state_dict=state, optimizer=dict(lr=1))


@pytest.fixture
def run(tmp_path):
    """Export a checkpoint, or a file of one."""

    def run(checkpoint, target, out, *options, backbone=RESNET18):
        cfg = Config.fromstring(CONFIG.format(backbone=backbone), '.py')
        if not isinstance(checkpoint, Path):
            torch.save(checkpoint, tmp_path / 'in.pth')
            checkpoint = tmp_path / 'in.pth'
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return export_backbone(cfg, checkpoint, target, out, *options)

    return run


def read(path):
    if path.suffix == '.safetensors':
        return pytest.importorskip('safetensors.torch').load_file(path)
    return torch.load(path, weights_only=True)


def equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    return True


def new_network(target):
    """The other library's network, untrained."""
    if target == 'torchvision':
        network = torchvision.models.resnet18()
        network.fc = torch.nn.Identity()
        return network
    if target == 'timm':
        network = pytest.importorskip('timm').create_model('resnet18')
        network.relu = network.act1
        network.reset_classifier(0)
        return network
    library = pytest.importorskip(f'{target}.registry')
    cfg = dict(type=f'{target}.ResNet', depth=18)
    return library.MODELS.build(cfg)


# --- what is written --------------------------------------------------------


def follow(lines, target, weights_only_in_python):
    """Do what the hint says; give the backbone that comes of it."""
    if target in ('torchvision', 'timm'):
        names = {}
        exec(lines, names)
        return names['model']
    if weights_only_in_python:
        model = torch.nn.Module()
        model.backbone = new_network(target)
        exec(lines, dict(model=model))
        return model.backbone
    names = {}
    exec(lines, names)
    base = dict(backbone=dict(type='ResNet', depth=18))
    if target == 'mmseg':
        base = dict(
            pretrained='open-mmlab://resnet50_v1c',
            backbone=dict(type='ResNetV1c', depth=50),
        )
    cfg = Config(dict(model=base))
    cfg.merge_from_dict(dict(model=names['model']))
    assert cfg.model.get('pretrained') is None
    registry = importlib.import_module(f'{target}.registry').MODELS
    with DefaultScope.overwrite_default_scope(target):
        network = registry.build(cfg.model.backbone)
        network.init_weights()
    return network


@pytest.mark.parametrize(
    ('target', 'suffix'),
    [
        ('torchvision', '.pth'),
        ('torchvision', '.safetensors'),
        ('timm', '.pth'),
        ('timm', '.safetensors'),
        ('mmpretrain', '.pth'),
        ('mmpretrain', '.safetensors'),
        pytest.param('mmdet', '.pth', marks=pytest.mark.downstream),
        pytest.param('mmdet', '.safetensors', marks=pytest.mark.downstream),
        pytest.param('mmseg', '.pth', marks=pytest.mark.downstream),
    ],
)
def test_features_stay_the_same(
    run, tmp_path, original, image, expected, target, suffix
):
    if suffix == '.safetensors':
        pytest.importorskip('safetensors')
    network = new_network(target)
    weights = bare(original)
    name = 'layer1.0.conv1.weight'
    weights[name] = weights[name].to(memory_format=torch.channels_last)
    out = tmp_path / f'folder/out{suffix}'
    done = run(training_checkpoint(weights), target, out)
    written = read(out)
    assert set(written) == set(weights)
    for name, value in weights.items():
        assert torch.equal(written[name], value), name
    network.load_state_dict(written, strict=True)
    assert equal(stages(network, image), expected)
    assert done.tensors == 120
    assert done.difference == 0
    assert done.preprocessor == dict(
        mean=[1.5, 2.5, 3.5], std=[4, 5, 6], to_rgb=True
    )
    assert [p.name for p in out.parent.iterdir()] == [out.name]

    # as PyTorch's own state dicts, it carries more than tensors
    assert read_facts(read_weights(out)) == dict(
        mean=[1.5, 2.5, 3.5], std=[4.0, 5.0, 6.0], channels='rgb'
    )
    if target in ('mmdet', 'mmseg') and suffix == '.pth':
        assert (
            'data_preprocessor=dict(mean=[1.5, 2.5, 3.5], '
            'std=[4.0, 5.0, 6.0], bgr_to_rgb=True)'
        ) in ' '.join(done.hint.split())
        assert "style='pytorch'" in done.hint
    network = follow(done.hint, target, suffix == '.safetensors')
    if target == 'timm':
        network.relu = network.act1
    assert equal(stages(network, image), expected)


def detectron2_names(stages, convolutions, without_shortcut):
    """Name in torchvision -> name in detectron2, written out."""
    statistics = (
        *('weight', 'bias', 'running_mean', 'running_var'),
        'num_batches_tracked',
    )
    names = {'conv1.weight': 'stem.conv1.weight'}
    for kind in statistics:
        names[f'bn1.{kind}'] = f'stem.conv1.norm.{kind}'
    for stage, count in enumerate(stages):
        for block in range(count):
            theirs = f'res{stage + 2}.{block}'
            ours = f'layer{stage + 1}.{block}'
            pairs = [
                (f'conv{i}', f'bn{i}', f'conv{i}')
                for i in range(1, convolutions + 1)
            ]
            if block == 0 and stage not in without_shortcut:
                pairs.append(('downsample.0', 'downsample.1', 'shortcut'))
            for convolution, norm, name in pairs:
                names[f'{ours}.{convolution}.weight'] = (
                    f'{theirs}.{name}.weight'
                )
                for kind in statistics:
                    names[f'{ours}.{norm}.{kind}'] = (
                        f'{theirs}.{name}.norm.{kind}'
                    )
    return names


@pytest.mark.parametrize(
    ('depth', 'names'),
    [
        (18, detectron2_names((2, 2, 2, 2), 2, [0])),
        (101, detectron2_names((3, 4, 23, 3), 3, [])),
    ],
)
def test_names_in_detectron2(depth, names):
    with torch.device('meta'):
        network = getattr(torchvision.models, f'resnet{depth}')()
    ours = [n for n in network.state_dict() if not n.startswith('fc.')]
    assert {name: converter.to_detectron2(name) for name in ours} == names
    assert [converter.from_detectron2(names[name]) for name in ours] == ours


def detectron2_stages(weights, x):
    """What a ResNet-18 computes, by detectron2's names."""

    def convolve(x, name, stride, padding):
        x = F.conv2d(x, weights[f'{name}.weight'], None, stride, padding)
        norm = [
            weights[f'{name}.norm.{kind}']
            for kind in ('running_mean', 'running_var', 'weight', 'bias')
        ]
        return F.batch_norm(x, *norm)

    x = F.max_pool2d(F.relu(convolve(x, 'stem.conv1', 2, 3)), 3, 2, 1)
    found = []
    for stage in range(2, 6):
        for block in range(2):
            name = f'res{stage}.{block}'
            stride = 2 if block == 0 and stage > 2 else 1
            y = F.relu(convolve(x, f'{name}.conv1', stride, 1))
            y = convolve(y, f'{name}.conv2', 1, 1)
            if f'{name}.shortcut.weight' in weights:
                x = convolve(x, f'{name}.shortcut', stride, 0)
            x = F.relu(x + y)
        found.append(x)
    return found


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_detectron2(run, tmp_path, original, image, expected, suffix):
    if suffix == '.safetensors':
        pytest.importorskip('safetensors')
    out = tmp_path / f'out{suffix}'
    done = run(training_checkpoint(bare(original)), 'detectron2', out)
    written = read(out)
    if suffix == '.pth':
        # without it detectron2 looks for backbone.bottom_up.stem...
        assert written['matching_heuristics'] is True
        written = written['model']
        assert f"MODEL.WEIGHTS = '{out}'" in done.hint
        assert 'MODEL.RESNETS.DEPTH = 18' in done.hint
        assert 'STRIDE_IN_1X1 = False' in done.hint
        assert 'RES2_OUT_CHANNELS = 64' in done.hint
        assert 'Base-RCNN-FPN.yaml' in done.hint
        assert "INPUT.FORMAT = 'RGB'" in done.hint
        assert 'MODEL.PIXEL_MEAN = [1.5, 2.5, 3.5]' in done.hint
        assert 'MODEL.PIXEL_STD = [4.0, 5.0, 6.0]' in done.hint
        assert read_facts(written)['std'] == [4.0, 5.0, 6.0]
    else:
        assert 'MODEL.WEIGHTS of detectron2 reads .pth files only' in done.hint
    assert len(written) == 120
    assert equal(detectron2_stages(written, image), expected)


def test_what_detectron2_is_told():
    """Of bottleneck blocks no more, of images what is known."""
    assert describe_blocks(34).endswith('RES2_OUT_CHANNELS = 64\n')
    assert describe_blocks(50) == ''
    told = describe_images('detectron2', dict(mean=[78.0], std=[87.0]))
    assert 'does not tell in full' in told
    assert 'MODEL.PIXEL_MEAN = [78.0, 78.0, 78.0]\n' in told
    assert 'INPUT.FORMAT =' not in told
    assert 'PIXEL_MEAN =' not in describe_images('detectron2', {})
    for target in ('timm', 'torchvision', 'mmpretrain'):
        assert describe_images(target, dict(mean=[78.0], std=[87.0])) == ''


def test_strides_go_with_the_weights(run, tmp_path):
    """And the hook refuses a network that has them elsewhere."""
    small = (
        "type='ResNet', depth=50, num_stages=2, strides=(1, 2), "
        'dilations=(1, 1), out_indices=(1,), base_channels=4, stem_channels=4'
    )
    for style, other in (('pytorch', 'caffe'), ('caffe', 'pytorch')):
        backbone = f'{small}, style={style!r}'
        out = tmp_path / f'{style}.pth'
        checkpoint = training_checkpoint(build(backbone).state_dict())
        run(checkpoint, 'mmpretrain', out, backbone=backbone)
        assert read_facts(read(out))['style'] == style
        for kind in (style, other):
            model = BaseModule()
            model.backbone = build(
                f'{small}, style={kind!r}, init_cfg=dict('
                f"type='Pretrained', checkpoint={str(out)!r})"
            )
            if kind == style:
                PretrainedCheckHook().check(model, Config())
                continue
            with pytest.raises(ValueError, match=f"Give .* style='{style}'"):
                PretrainedCheckHook().check(model, Config())


def test_to_torchvision_and_back(run, tmp_path, original):
    pytest.importorskip('safetensors')
    middle, out = tmp_path / 'middle.safetensors', tmp_path / 'out.pth'
    run(training_checkpoint(bare(original)), 'torchvision', middle)
    run(middle, 'mmpretrain', out, 'torchvision')
    back = read(out)
    for name, value in bare(original).items():
        assert torch.equal(back.pop(name), value), name
    assert not back


def test_from_torchvision_with_its_classifier(run, tmp_path, original):
    out = tmp_path / 'out.pth'
    run(original.state_dict(), 'mmpretrain', out, 'torchvision')
    assert set(read(out)) == set(bare(original))


def test_old_files_have_no_counters(run, tmp_path, original):
    old = {k: v for k, v in bare(original).items() if 'num_b' not in k}
    out = tmp_path / 'out.pth'
    run(old, 'torchvision', out, 'torchvision')
    assert read(out)['bn1.num_batches_tracked'] == 0
    new_network('torchvision').load_state_dict(read(out), strict=True)


def test_of_wrapped_models(run, tmp_path, small):
    out = tmp_path / 'out.pth'
    checkpoint = training_checkpoint(small, 'module.backbone.')
    run(checkpoint, 'mmpretrain', out, backbone=SMALL)
    name = 'layer4.1.bn2.running_var'
    assert torch.equal(read(out)[name], small[name])


CUSTOM = sorted((Path(__file__).parents[2] / 'configs').glob('*/*_custom.py'))


@pytest.mark.parametrize(
    'path', [pytest.param(path, id=path.stem) for path in CUSTOM]
)
def test_configs_for_a_folder_can_be_exported(path):
    """To all libraries, but the network that is Exemplar-CNN's own."""
    cfg = read_config(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        network = converter._build_backbone(cfg)
    if path.parent.name == 'exemplar_cnn':
        with pytest.raises(ValueError, match='Only --to mmpretrain'):
            converter._check_plain(network, 'mmdet')
    else:
        converter._check_plain(network, 'mmdet')
    # and the file tells all that the hook compares
    assert preprocessing_of(cfg)['channels'] == 'rgb'


def test_every_kind_of_method_has_such_a_config():
    assert {'essl', 'multi_task'} < {path.parent.name for path in CUSTOM}


def test_algorithm_of_mmpretrain(run, tmp_path):
    """The backbone is taken, not the copy of it that follows slowly."""
    neck = dict(
        type='NonLinearNeck',
        in_channels=32,
        hid_channels=8,
        out_channels=8,
        num_layers=2,
        with_avg_pool=True,
    )
    predictor = dict(neck, in_channels=8, with_avg_pool=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(
                type='BYOL',
                backbone=eval(f'dict({SMALL})'),
                neck=neck,
                head=dict(
                    type='LatentPredictHead',
                    loss=dict(type='CosineSimilarityLoss'),
                    predictor=predictor,
                ),
            )
        )
    for parameter in model.target_net.parameters():
        parameter.data.zero_()
    out = tmp_path / 'out.pth'
    run(dict(state_dict=model.state_dict()), 'mmpretrain', out, backbone=SMALL)
    written = read(out)
    expected = model.backbone.state_dict()
    assert set(written) == set(expected)
    assert all(torch.equal(written[name], expected[name]) for name in expected)


VIT = 'dict(embed_dims=12, num_layers=2, num_heads=3, feedforward_channels=24)'


@pytest.mark.parametrize(
    ('backbone', 'options'),
    [
        ("type='mm_rotssl.ExemplarNet', arch='4c3-6c3'", ()),
        ("type='mm_rotssl.NIN', base_channels=6", ()),
        (
            "type='ResNet_CIFAR', depth=18, stem_channels=4, base_channels=4",
            (),
        ),
        ("type='ResNet', depth=18, base_channels=4, deep_stem=True", ()),
        # one channel
        ("type='LeNet5'", ()),
        (f"type='VisionTransformer', arch={VIT}", ()),
        # draws its mask
        (f"type='MAEViT', arch={VIT}", ('mm_rotssl', 224)),
        # its mask has no default
        (
            f"type='BEiTPretrainViT', arch={VIT}, img_size=32, patch_size=16, "
            'use_abs_pos_emb=True, use_rel_pos_bias=False',
            ('mm_rotssl', 32),
        ),
    ],
)
def test_any_backbone_to_mmpretrain(run, tmp_path, backbone, options):
    torch.manual_seed(0)
    network = build(backbone)
    weights = {
        name: torch.rand_like(value) + 0.5
        if value.is_floating_point()
        else value
        for name, value in network.state_dict().items()
    }
    out = tmp_path / 'out.pth'
    checkpoint = training_checkpoint(weights)
    run(checkpoint, 'mmpretrain', out, *options, backbone=backbone)
    written = read(out)
    assert set(written) == set(weights)
    assert all(torch.equal(written[name], weights[name]) for name in weights)


def test_other_size_of_image(run, tmp_path):
    checkpoint = training_checkpoint(build("type='LeNet5'").state_dict())
    with pytest.raises(ValueError, match=r'no image of 4 x 4 .*--size'):
        run(
            *(checkpoint, 'mmpretrain', tmp_path / 'out.pth', 'mm_rotssl', 4),
            backbone="type='LeNet5'",
        )
    assert not (tmp_path / 'out.pth').exists()


# --- what is refused --------------------------------------------------------


def renamed(weights, old, new):
    return {new if k == old else k: v for k, v in weights.items()}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda w: renamed(w, 'layer2.0.bn1.bias', 'layer2.0.gn1.bias'),
            r'(?s)missing: layer2\.0\.bn1\.bias\n.*unexpected: '
            r'layer2\.0\.gn1\.bias$',
        ),
        (
            lambda w: {k: v for k, v in w.items() if k != 'conv1.weight'},
            r'missing: conv1\.weight$',
        ),
        (
            lambda w: {**w, 'layer5.0.conv1.weight': torch.ones(1)},
            r'unexpected: layer5\.0\.conv1\.weight$',
        ),
        (
            lambda w: {**w, 'conv1.weight': torch.ones(4, 3, 3, 3)},
            r'of another shape: conv1\.weight is \(4, 3, 3, 3\), not '
            r'\(4, 3, 7, 7\)$',
        ),
        (
            lambda w: {
                **w,
                'bn1.bias': w['bn1.bias'].index_fill(
                    0, torch.tensor([3]), float('nan')
                ),
            },
            r'bn1\.bias of .* is not finite',
        ),
        (
            lambda w: {
                **w,
                'layer4.1.conv2.weight': torch.full(
                    (32, 32, 3, 3), float('-inf')
                ),
            },
            r'layer4\.1\.conv2\.weight of .* is not finite',
        ),
        (lambda w: {**w, 'bn1.bias': [0] * 4}, r'bn1\.bias of .*is a list'),
        (
            lambda w: {**w, 'bn1.bias': w['bn1.bias'].to(torch.int8)},
            r'of another kind: bn1\.bias is torch\.int8, not torch\.float32$',
        ),
        (
            lambda w: {**w, 'conv1.weight': w['conv1.weight'] + 0j},
            r'of another kind: conv1\.weight is torch\.complex64, not ',
        ),
        (
            lambda w: {
                **w,
                'bn1.num_batches_tracked': torch.tensor(2.5),
            },
            r'of another kind: bn1\.num_batches_tracked is torch\.float32',
        ),
    ],
)
def test_refuses_other_weights(run, tmp_path, small, change, message):
    out = tmp_path / 'out.pth'
    out.write_bytes(b'of before')
    checkpoint = training_checkpoint(change(small))
    with pytest.raises(ValueError, match=message):
        run(checkpoint, 'mmpretrain', out, backbone=SMALL)
    assert out.read_bytes() == b'of before'


def test_refuses_other_weights_of_torchvision(run, tmp_path, original):
    weights = renamed(bare(original), 'bn1.bias', 'bn1.offset')
    with pytest.raises(
        ValueError, match=r'missing: bn1\.bias\n.*unexpected: bn1\.offset$'
    ):
        run(
            *(weights, 'mmpretrain', tmp_path / 'out.pth'),
            'torchvision',
        )
    assert not (tmp_path / 'out.pth').exists()


def test_refuses_weights_without_prefix(run, tmp_path, small):
    for state in (small, dict(model=small)):
        with pytest.raises(ValueError, match='--from torchvision'):
            run(state, 'mmpretrain', tmp_path / 'out.pth')


def test_runs_no_code_of_a_file(run, tmp_path, small):
    checkpoint = training_checkpoint(small)
    checkpoint['meta'] = Harmful(tmp_path / 'harm')
    with pytest.raises(ValueError, match=r'mkdir.*could run code'):
        run(checkpoint, 'torchvision', tmp_path / 'out.pth')
    assert not (tmp_path / 'harm').exists()
    assert not (tmp_path / 'out.pth').exists()


def test_refuses_missing_and_damaged_files(run, tmp_path):
    pytest.importorskip('safetensors')
    (tmp_path / 'bad.safetensors').write_bytes(b'\x05' * 40)
    for name, error, message in (
        ('none.pth', FileNotFoundError, 'does not exist'),
        ('none.safetensors', FileNotFoundError, 'does not exist'),
        ('bad.safetensors', ValueError, r'bad\.safetensors" is damaged'),
    ):
        with pytest.raises(error, match=message):
            run(tmp_path / name, 'torchvision', tmp_path / 'out.pth')


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        ("type='ResNet_CIFAR', depth=18", 'ResNet_CIFAR'),
        ("type='ResNetV1d', depth=50", 'ResNetV1d'),
        ("type='mm_rotssl.NIN', base_channels=6", 'NIN'),
        ("type='ResNet', depth=18, deep_stem=True", 'deep_stem=True'),
        ("type='ResNet', depth=18, avg_down=True", 'avg_down=True'),
        ("type='ResNet', depth=18, style='caffe'", "style='caffe'"),
        ("type='ResNet', depth=18, base_channels=8", 'base_channels=8'),
        ("type='ResNet', depth=18, stem_channels=8", 'stem_channels=8'),
        (
            "type='ResNet', depth=18, strides=[1, 2, 2, 1]",
            r'strides=\(1, 2, 2, 1\)',
        ),
        (
            "type='ResNet', depth=18, dilations=[1, 1, 1, 2]",
            r'dilations=\(1, 1, 1, 2\)',
        ),
    ],
)
def test_refuses_other_backbones(run, tmp_path, backbone, message):
    with pytest.raises(ValueError, match=f'{message}.*ResNet of torchvision'):
        run({}, 'torchvision', tmp_path / 'out.pth', backbone=backbone)


@pytest.mark.parametrize('target', ['mmdet', 'mmseg', 'timm', 'detectron2'])
def test_refuses_other_backbones_for_all(run, tmp_path, target):
    with pytest.raises(ValueError, match=f'ResNet_CIFAR.*ResNet of {target}'):
        run(
            *({}, target, tmp_path / 'out.pth'),
            backbone="type='ResNet_CIFAR', depth=18",
        )


def test_torchvision_has_no_caffe_style(run, tmp_path):
    """Whose names and shapes are the same, but not the strides."""
    with pytest.raises(ValueError, match=r"style='caffe'.*of torchvision"):
        run(
            *({}, 'mmpretrain', tmp_path / 'out.pth', 'torchvision'),
            backbone="type='ResNet', depth=50, style='caffe'",
        )


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        ('', 'names no model.backbone'),
        ("type='ResNet', depth=19", 'cannot be built.*invalid depth 19'),
        ("type='ResNot'", 'cannot be built.*ResNot'),
    ],
)
def test_refuses_unusable_configs(run, tmp_path, backbone, message):
    with pytest.raises(ValueError, match=message):
        run({}, 'mmpretrain', tmp_path / 'out.pth', backbone=backbone)


@pytest.mark.parametrize(
    ('target', 'suffix', 'package', 'remedy'),
    [
        ('timm', '.pth', 'timm', 'pip install timm'),
        ('mmdet', '.pth', 'mmdet', r'mm-rotssl\[transfer\]'),
        ('mmseg', '.pth', 'mmseg', r'mm-rotssl\[transfer\]'),
        (
            *('torchvision', '.safetensors', 'safetensors'),
            'pip install safetensors',
        ),
    ],
)
def test_names_the_missing_package(
    run, tmp_path, original, monkeypatch, target, suffix, package, remedy
):
    for name in list(sys.modules):
        if name.split('.')[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError, match=f'needs the package {package}, .*{remedy}'
    ):
        run(
            *(training_checkpoint(bare(original)), target),
            tmp_path / f'out{suffix}',
        )
    assert {p.name for p in tmp_path.iterdir()} == {'in.pth'}


def test_refuses_unknown_libraries(run, tmp_path):
    out = tmp_path / 'out.pth'
    with pytest.raises(ValueError, match="target='tv': one of mmdet, mmseg,"):
        run({}, 'tv', out)
    with pytest.raises(ValueError, match="source='tv': one of mm_rotssl, "):
        run({}, 'torchvision', out, 'tv')


def test_refuses_other_outputs(run, tmp_path, small):
    checkpoint = training_checkpoint(small)
    with pytest.raises(ValueError, match=r'out\.pt" must end in \.pth or'):
        run(checkpoint, 'torchvision', tmp_path / 'out.pt')
    content = (tmp_path / 'in.pth').read_bytes()
    (tmp_path / 'link.pth').symlink_to(tmp_path / 'in.pth')
    for name in ('in.pth', 'link.pth'):
        with pytest.raises(ValueError, match='is the input'):
            run(tmp_path / 'in.pth', 'torchvision', tmp_path / name)
    assert (tmp_path / 'in.pth').read_bytes() == content


# --- what verification finds ------------------------------------------------


@pytest.mark.parametrize(
    ('target', 'before', 'changes', 'message'),
    [
        (
            *('torchvision', None, {'bn1.bias': 'bn1.offset'}),
            r'(?s)torchvision would not.*missing: bn1\.bias\n.*unexpected: '
            r'bn1\.offset',
        ),
        # of the same shape
        (
            *('torchvision', b'of before'),
            {
                'layer3.1.bn1.weight': 'layer3.1.bn2.weight',
                'layer3.1.bn2.weight': 'layer3.1.bn1.weight',
            },
            'features of layer3 in torchvision differ by',
        ),
        (
            *('mmpretrain', None),
            {
                'layer4.1.bn1.bias': 'layer4.1.bn2.bias',
                'layer4.1.bn2.bias': 'layer4.1.bn1.bias',
            },
            'features of layer4 in mmpretrain differ by',
        ),
    ],
)
def test_finds_wrong_names(
    run, tmp_path, original, monkeypatch, target, changes, message, before
):
    out = tmp_path / 'out.pth'
    if before:
        out.write_bytes(before)
    save = torch.save
    checkpoint = training_checkpoint(bare(original))
    save(checkpoint, tmp_path / 'mine.pth')
    monkeypatch.setattr(
        torch,
        'save',
        lambda weights, path: save(
            {changes.get(k, k): v for k, v in weights.items()}, path
        ),
    )
    with pytest.raises(ValueError, match=message):
        run(tmp_path / 'mine.pth', target, out)
    assert (out.read_bytes() if out.exists() else None) == before
    left = {p.name for p in tmp_path.iterdir()} - {'out.pth'}
    assert left == {'mine.pth'}


@pytest.mark.parametrize('direction', ['to_detectron2', 'from_detectron2'])
def test_finds_wrong_names_of_detectron2(
    run, tmp_path, original, monkeypatch, direction
):
    right = getattr(converter, direction)
    monkeypatch.setattr(
        converter,
        direction,
        lambda name: (
            right(name)
            .replace('1.bn2.bias', '1.bn2.offset')
            .replace('res3.1.conv2.norm.bias', 'res3.1.conv2.bias')
        ),
    )
    with pytest.raises(ValueError, match=r'missing: layer2\.1\.bn2\.bias\n'):
        run(
            *(training_checkpoint(bare(original)), 'detectron2'),
            tmp_path / 'out.pth',
        )
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        # names and shapes are those of torchvision
        ("norm_cfg=dict(type='BN', eps=0.01)", 'features of layer1 in torchv'),
        ("conv_cfg=dict(type='ConvWS')", 'features of layer1 in torchvision'),
        (
            "norm_cfg=dict(type='GN', num_groups=4)",
            r'(?s)missing: bn1\.weight\n.*unexpected: gn1\.weight\n',
        ),
        ('in_channels=1', r'of another shape: conv1\.weight is \(64, 1, 7, 7'),
    ],
)
def test_finds_settings_that_torchvision_lacks(
    run, tmp_path, setting, message
):
    backbone = f"type='ResNet', depth=18, {setting}"
    torch.manual_seed(0)
    network = build(backbone)
    with pytest.raises(ValueError, match=message):
        run(
            *(training_checkpoint(network.state_dict()), 'torchvision'),
            tmp_path / 'out.pth',
            backbone=backbone,
        )
    assert {p.name for p in tmp_path.iterdir()} == {'in.pth'}


def test_a_failed_write_leaves_nothing(run, tmp_path, small, monkeypatch):
    torch.save(training_checkpoint(small), tmp_path / 'in.pth')
    (tmp_path / 'out.pth').write_bytes(b'of before')

    def fail(path, content):
        with open(path, 'wb') as file:
            file.write(content[:9])
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', fail)
    with pytest.raises(OSError, match=r'out\.pth" .*No space left'):
        run(
            *(tmp_path / 'in.pth', 'mmpretrain', tmp_path / 'out.pth'),
            backbone=SMALL,
        )
    assert (tmp_path / 'out.pth').read_bytes() == b'of before'
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {'in.pth', 'out.pth'}
