"""Networks of other libraries, and networks before training."""

import copy

import numpy as np
import pytest
import timm
import torch
import torchvision
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file

from mm_rotssl.apis import (
    build_ordered_dataloader,
    build_untrained,
    load_network,
    read_network,
)
from mm_rotssl.apis.sources import folder_dataloader
from mm_rotssl.evaluation.feature_store import (
    FeatureStore,
    network_outputs,
)
from mm_rotssl.registry import MODELS


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 256, (6, 7, 3), np.uint8)
        # smooth: the center of a crop is rounded differently
        image = Image.fromarray(pixels).resize((300, 260))
        image.save(folder / f'{number}.png')
    return folder


def features(source, checkpoint, images):
    cfg = read_network(source)
    loader = build_ordered_dataloader(folder_dataloader(cfg, images))
    return FeatureStore().extract(load_network(cfg, checkpoint), loader)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_timm(images, tmp_path, suffix):
    """As timm itself prepares and runs it, weights of ten classes."""
    torch.manual_seed(0)
    model = timm.create_model('resnet18', num_classes=10).eval()
    file = tmp_path / f'w{suffix}'
    if suffix == '.pth':
        torch.save(model.state_dict(), file)
    else:
        save_file(model.state_dict(), file)
    found = features('timm:resnet18', file, images)
    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(model), is_training=False
    )
    batch = torch.stack(
        [
            transform(Image.open(path).convert('RGB'))
            for path in sorted(images.iterdir())
        ]
    )
    with torch.no_grad():
        maps = model.forward_intermediates(batch, intermediates_only=True)
    assert list(found.stages) == list('12345')
    for got, want in zip(found.stages.values(), maps, strict=True):
        torch.testing.assert_close(
            got, want.mean((2, 3)), rtol=1e-4, atol=1e-5
        )


def test_timm_network_that_computes_in_another_layout(tmp_path):
    model = timm.create_model('swin_tiny_patch4_window7_224').eval()
    file = tmp_path / 'w.pth'
    torch.save(model.state_dict(), file)
    cfg = read_network('timm:swin_tiny_patch4_window7_224')
    network = load_network(cfg, file)
    network.eval()
    batch = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        maps = network.extract_feat(batch, stage='backbone')
        want = model.forward_features(batch).permute(0, 3, 1, 2)
    assert [one.shape[1] for one in maps] == [96, 192, 384, 768]
    # the last one is not normalized yet
    torch.testing.assert_close(
        model.norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2), want
    )


def test_torchvision(images, tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=7).eval()
    file = tmp_path / 'w.pth'
    torch.save(model.state_dict(), file)
    found = features('torchvision:resnet18', file, images)
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    batch = torch.stack(
        [
            transform(Image.open(path).convert('RGB'))
            for path in sorted(images.iterdir())
        ]
    )
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(batch))))
        for i, name in enumerate(('layer1', 'layer2', 'layer3', 'layer4')):
            x = getattr(model, name)(x)
            got = found.stages[str(i + 1)]
            torch.testing.assert_close(
                got, x.mean((2, 3)), rtol=1e-4, atol=1e-5
            )
    assert len(found.stages) == 4


@pytest.mark.parametrize(
    ('name', 'shapes'),
    [
        ('alexnet', [(64, 55), (192, 27), (256, 13), (256, 6)]),
        ('vit_b_16', [(197, 768)] * 12),
    ],
)
def test_stages_of_torchvision(name, shapes):
    backbone = MODELS.build(
        dict(type='mm_rotssl.TorchvisionBackbone', model_name=name)
    ).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 224, 224))
        again = copy.deepcopy(backbone)(torch.rand(1, 3, 224, 224))
    assert [tuple(one.shape[1:3]) for one in maps] == shapes
    assert len(again) == len(maps)


def test_weights_of_another_network(tmp_path):
    file = tmp_path / 'w.pth'
    torch.save(torchvision.models.resnet18().state_dict(), file)
    for source in ('torchvision:resnet34', 'timm:resnet34'):
        with pytest.raises(ValueError, match=r'(?s)another arch.*missing'):
            load_network(read_network(source), file)


def test_networks_that_are_not_known():
    with pytest.raises(ValueError, match=r'timm:resnet1.*list_models'):
        read_network('timm:resnet1')
    with pytest.raises(ValueError, match=r'torchvision:resnet1.*list_models'):
        read_network('torchvision:resnet1')
    with pytest.raises(ValueError, match=r'"swin_t".*timm:NAME'):
        MODELS.build(
            dict(type='mm_rotssl.TorchvisionBackbone', model_name='swin_t')
        )
    cfg = Config(dict(model=dict(type='ImageClassifier')))
    with pytest.raises(ValueError, match='needs a checkpoint'):
        load_network(cfg, None)


SIMCLR = """
model = dict(
    type='SimCLR', backbone=dict(type='{}', {}),
    neck=dict(type='NonLinearNeck', in_channels={}, hid_channels=8,
              out_channels=4, num_layers=2, with_avg_pool={}),
    head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss')))
"""


@pytest.mark.parametrize(
    ('kind', 'settings', 'channels'),
    [
        ('ResNet', 'depth=18', [64, 128, 256, 512]),
        ('mm_rotssl.NIN', 'base_channels=6, num_stages=3', [3, 6, 6]),
        # with a normalization of each stage that is given
        (
            'SwinTransformer',
            "arch='tiny', pad_small_map=True",
            [96, 192, 384, 768],
        ),
        ('VAN', "arch='tiny'", [32, 64, 160, 256]),
        # of a map that is pooled before
        ('ConvNeXt', "arch='atto'", [40, 80, 160, 320]),
    ],
)
def test_all_stages_and_the_same_embedding(tmp_path, kind, settings, channels):
    """Backbones that give one stage are made to give those before, too."""
    pool = kind != 'ConvNeXt'
    file = tmp_path / 'a.py'
    file.write_text(SIMCLR.format(kind, settings, channels[-1], pool))
    as_trained = read_network(file)
    as_trained.all_stages = False
    inputs = torch.rand(2, 3, 64, 64)
    found = []
    for cfg in (as_trained, read_network(file)):
        model = build_untrained(cfg, 0)
        model.eval()
        with torch.no_grad():
            found.append(network_outputs(model, inputs))
    last = str(len(channels))
    assert list(found[0]) == [last, 'embedding']
    assert [feats.size(1) for feats in found[1].values()] == [*channels, 4]
    for stage in (last, 'embedding'):
        assert torch.equal(found[0][stage], found[1][stage])
    # no stage is a copy of another, nor the same for every image
    assert all(feats.std(0).max() > 0 for feats in found[1].values())


def test_stages_that_were_asked_for(tmp_path):
    file = tmp_path / 'a.py'
    for asked in ((2,), (1, 3)):
        settings = f'depth=18, out_indices={asked}'
        file.write_text(SIMCLR.format('ResNet', settings, 512, True))
        model = build_untrained(read_network(file), 0)
        # of the network as it is, a part of which is not trained
        given = (0, 1, 2) if asked == (2,) else (1, 3)
        assert model.backbone.out_indices == given
        options = {'model.backbone.out_indices': asked}
        model = build_untrained(read_network(file, options), 0)
        assert model.backbone.out_indices == asked


def test_untrained_is_without_the_weights_that_a_config_starts_from(tmp_path):
    nin = dict(type='mm_rotssl.NIN', base_channels=6, num_stages=3)
    start = MODELS.build(nin)
    torch.save(start.state_dict(), tmp_path / 'w.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'w.pth'))
    model = dict(
        type='mm_rotssl.RotNet',
        backbone=dict(nin, init_cfg=pretrained),
        head=dict(type='mm_rotssl.RotationHead', in_channels=6),
        neck=dict(type='GlobalAveragePooling'),
    )
    cfg = Config(dict(model=model))
    one, same, other = (build_untrained(cfg, seed) for seed in (3, 3, 4))
    weights = [next(net.backbone.parameters()) for net in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], next(start.parameters()))
    # the config itself is left as it is
    assert cfg.model.backbone.init_cfg.type == 'Pretrained'


@pytest.mark.parametrize(('asked', 'given'), [(0, 0), (1, 1), (64, 3)])
def test_no_more_processes_than_cores(images, monkeypatch, asked, given):
    monkeypatch.setattr('joblib.cpu_count', lambda: 3)
    cfg = read_network('torchvision:resnet18')
    settings = folder_dataloader(cfg, images)
    settings['num_workers'] = asked
    settings['persistent_workers'] = asked > 0
    assert build_ordered_dataloader(settings).num_workers == given
