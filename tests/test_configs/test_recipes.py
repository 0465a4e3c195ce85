"""What configs take over from official codes, beside the learning rates."""

import numpy as np
import pytest
import torchvision
from mmengine.registry import TRANSFORMS, init_default_scope
from PIL import Image
from test_all_configs import CONFIGS, ROOT, learning_rates, nodes, read_only


def views_of(path):
    """Whether a config's images come as RGB, and its kinds of transforms."""
    found = list(nodes(read_only(path).train_dataloader.dataset))
    kinds = {}
    for node in found:
        kinds.setdefault(node.get('type'), []).append(node)
    # read from files they are BGR
    return 'CIFAR10' in kinds, kinds


def test_gray_is_pillows():
    """Of pure colors, in the order of the channels that a config has."""
    init_default_scope('mmpretrain')
    checked = set()
    for path in CONFIGS:
        rgb, kinds = views_of(path)
        for settings in kinds.get('RandomGrayscale', ()):
            checked.add((path.parent.name, rgb))
            gray = TRANSFORMS.build({**settings, 'prob': 1.0})
            for color in (*np.eye(3, dtype=np.uint8), np.ones(3, np.uint8)):
                image = np.tile(255 * color, (2, 2, 1))
                want = np.asarray(Image.fromarray(image).convert('L'))
                if not rgb:
                    image = image[..., ::-1]
                found = gray(dict(img=image))['img']
                assert found.shape == (2, 2, 3)
                # Pillow rounds
                for channel in np.moveaxis(found.astype(int), 2, 0):
                    assert abs(channel - want).max() <= 1, path.stem
            assert found.min() == 255, path.stem
        for jitter in kinds.get('NumpyToPIL', ()):
            assert jitter.get('to_rgb', False) is not rgb, path.stem
    assert {True, False} == {rgb for _, rgb in checked}
    names = {name for name, _ in checked}
    assert names >= {'simclr', 'byol', 'moco', 'swav', 'self_classifier'}


def test_crops_of_cifar10_are_not_aliased():
    """Beside torchvision's, of an image with fine stripes."""
    init_default_scope('mmpretrain')
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, ::2] = 255
    checked = 0
    for path in CONFIGS:
        rgb, kinds = views_of(path)
        if not rgb or 'MultiView' not in kinds:
            continue
        for settings in kinds['mm_rotssl.RandomResizedCropFlip']:
            whole = {**settings, 'crop_ratio_range': (1.0, 1.0)}
            crop = TRANSFORMS.build({**whole, 'aspect_ratio_range': (1, 1)})
            size = settings['scale']
            way = torchvision.transforms.InterpolationMode(
                settings.get('interpolation', 'bilinear')
            )
            want = torchvision.transforms.Resize(size, way)(
                Image.fromarray(image)
            )
            found = crop(dict(img=image))['img']
            np.testing.assert_array_equal(found, np.asarray(want), path.stem)
            checked += 1
    assert checked > 20


def test_essl_on_cifar10():
    """The authors' recipe for SimCLR."""
    name = 'essl-simclr_resnet18_1xb512-warmup-coslr-800e_cifar10.py'
    cfg = read_only(ROOT / 'configs/essl' / name)
    assert cfg.model.head.hid_channels == cfg.model.algorithm.neck.hid_channels
    assert cfg.model.head.hid_channels == 2048
    assert cfg.model.head.num_hidden == 2
    mean, std = (np.array(cfg.data_preprocessor[k]) for k in ('mean', 'std'))
    np.testing.assert_allclose(mean / 255, (0.4914, 0.4822, 0.4465), 1e-6)
    np.testing.assert_allclose(std / 255, (0.2023, 0.1994, 0.2010), 1e-6)
    assert cfg.train_dataloader.batch_size == 512
    assert cfg.optim_wrapper.optimizer.weight_decay == 5e-4
    rates = learning_rates(f'essl/{name}')
    # 0.06 for 256 images
    assert max(rates) == rates[10] == pytest.approx(0.12)
    assert rates[0] < 1e-4
    share = np.arange(790) / 790
    cosine = 0.12 * (1 + np.cos(np.pi * share)) / 2
    np.testing.assert_allclose(rates[10:], cosine, rtol=1e-6)


@pytest.mark.parametrize(
    ('stem', 'layers'),
    [
        ('essl-byol_resnet18_1xb512-coslr-200e_cifar10', 2),
        ('essl-simclr_resnet18_1xb128-100e_custom', 3),
    ],
)
def test_hidden_layers_of_essl(stem, layers):
    head = read_only(ROOT / f'configs/essl/{stem}.py').model.head
    assert head.num_hidden == layers


def color_of(kinds):
    (jitter,) = kinds['torchvision/ColorJitter']
    keys = ('brightness', 'contrast', 'saturation', 'hue')
    return tuple(jitter[key] for key in keys)


@pytest.mark.parametrize(
    ('name', 'color'),
    [
        ('npid/npid_resnet18_1xb128-steplr-200e_cifar10', (0.4,) * 4),
        ('npid/npid_resnet50_8xb32-steplr-200e_in1k', (0.4,) * 4),
        ('moco/moco-v1_resnet50_8xb32-steplr-200e_in1k', (0.4,) * 4),
        ('sela/sela_resnet50_8xb32-steplr-400e_in1k', (0.4,) * 4),
        (
            'deepcluster/deepcluster_resnet50-sobel_8xb64-steplr-200e_in1k',
            (0.4, 0.4, 1.0, 0.5),
        ),
    ],
)
def test_colors_that_always_change(name, color):
    _, kinds = views_of(ROOT / f'configs/{name}.py')
    assert color_of(kinds) == color
    assert 'RandomApply' not in kinds
    assert all(node.prob == 0.2 for node in kinds['RandomGrayscale'])
    # the authors of NPID do not mirror CIFAR-10
    flips = [
        node.get('flip_prob', 0.0)
        for node in kinds.get('mm_rotssl.RandomResizedCropFlip', ())
    ]
    mirrored = 'RandomFlip' in kinds or any(flips)
    assert mirrored == ('cifar10' not in name)


def test_views_of_deepcluster_v2():
    name = 'deepcluster-v2_resnet50_64xb64-larc-coslr-800e_in1k'
    cfg = read_only(ROOT / f'configs/deepcluster_v2/{name}.py')
    _, views, _ = cfg.train_dataloader.dataset.pipeline
    assert views.num_views == [2, 6]
    for view, size, ratio in zip(
        views.transforms, (224, 96), ((0.14, 1.0), (0.05, 0.14)), strict=True
    ):
        kinds = {}
        for node in nodes(view):
            kinds.setdefault(node.get('type'), []).append(node)
        (crop,) = kinds['RandomResizedCrop']
        assert (crop.scale, tuple(crop.crop_ratio_range)) == (size, ratio)
        assert color_of(kinds) == (0.8, 0.8, 0.8, 0.2)
        assert kinds['RandomApply'][0].prob == 0.8
        assert kinds['GaussianBlur'][0].prob == 0.5
    head = cfg.model.head
    assert tuple(head.num_classes) == (3000,) * 3
    assert (head.temperature, cfg.model.labeler.iterations) == (0.1, 10)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (4.8, 1e-6)
