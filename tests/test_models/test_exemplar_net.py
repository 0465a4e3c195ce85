"""ExemplarNet against loops in float64."""

import numpy as np
import pytest
import torch

from mm_rotssl.models import ExemplarNet

SMALL = '64c5-64c5-128f'
MEDIUM = '64c5-128c5-256c5-512f'
LARGE = '92c5-256c5-512c5-1024f'
# kernels of three sizes, and two fully connected layers
MIXED = '3c5-4c3-2c1-5f-6f'


def build(arch, **kwargs):
    torch.manual_seed(0)
    stages = len(arch.split('-'))
    kwargs = {'out_indices': range(stages), **kwargs}
    return ExemplarNet(arch, **kwargs).double()


def convolution(x, weight, bias, padding):
    """Every place of every channel by itself; x is (C, H, W)."""
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding)])
    count, _, size, _ = weight.shape
    height, width = (length - size + 1 for length in x.shape[1:])
    out = np.empty((count, height, width))
    for c, i, j in np.ndindex(*out.shape):
        seen = x[:, i : i + size, j : j + size]
        out[c, i, j] = (seen * weight[c]).sum() + bias[c]
    return out


def pool(x):
    """Maxima of 3x3 at every second place; the last may be cut off."""
    rows, columns = (range(0, length - 1, 2) for length in x.shape[1:])
    out = np.empty((len(x), len(rows), len(columns)))
    for c, i, j in np.ndindex(*out.shape):
        out[c, i, j] = x[c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max()
    return out


def reference(net, arch, image):
    """The outputs of all stages, without dropout."""
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    x, outs, before = image, [], ''
    for number, layer in enumerate(arch.split('-'), 1):
        if number in (2, 3) and not before.endswith('f'):
            x = pool(x)
        before = layer
        size = state[f'stage{number}.conv.weight'].shape[-1]
        x = convolution(
            x,
            state[f'stage{number}.conv.weight'],
            state[f'stage{number}.conv.bias'],
            0 if layer.endswith('f') else (size - 1) // 2,
        )
        x = np.maximum(x, 0)
        outs.append(x)
    return outs


@pytest.mark.parametrize(
    ('arch', 'channels'),
    [
        (SMALL, [64, 64, 128]),
        (MEDIUM, [64, 128, 256, 512]),
        (LARGE, [92, 256, 512, 1024]),
    ],
)
@pytest.mark.parametrize(
    ('size', 'sides', 'last'), [(32, [32, 16, 8], 1), (96, [96, 48, 24], 17)]
)
def test_shapes_of_the_paper(arch, channels, size, sides, last):
    # shapes alone, without numbers, which would take memory and time
    with torch.device('meta'):
        outs = build(arch)(torch.zeros(2, 3, size, size).double())
    if len(channels) == 3:
        # no third convolution: the second pooling is in front of the last
        sides = sides[:2]
    assert [tuple(out.shape) for out in outs] == [
        (2, c, side, side)
        for c, side in zip(channels, [*sides, last], strict=True)
    ]


def test_the_default_is_the_middle_one():
    with torch.device('meta'):
        net = ExemplarNet()
        (out,) = net(torch.zeros(1, 3, 32, 32))
        assert str(net) == str(build(MEDIUM))
    assert out.shape == (1, 512, 1, 1)


@pytest.mark.parametrize(
    ('arch', 'in_channels', 'counts'),
    [
        (SMALL, 3, [64 * (75 + 1), 64 * (1600 + 1), 128 * (64 * 64 + 1)]),
        (
            MEDIUM,
            3,
            [
                64 * (75 + 1),
                128 * (1600 + 1),
                256 * (3200 + 1),
                512 * (256 * 64 + 1),
            ],
        ),
        (
            LARGE,
            1,
            [
                92 * (25 + 1),
                256 * (2300 + 1),
                512 * (6400 + 1),
                1024 * (512 * 64 + 1),
            ],
        ),
    ],
)
def test_number_of_parameters(arch, in_channels, counts):
    with torch.device('meta'):
        net = build(arch, in_channels=in_channels)
    found = dict.fromkeys((f'stage{i}' for i in range(1, len(counts) + 1)), 0)
    for name, parameter in net.named_parameters():
        stage, kind = name.split('.', 1)
        assert kind in ('conv.weight', 'conv.bias')
        found[stage] += parameter.numel()
    assert list(found.values()) == counts
    assert not list(net.buffers())


@pytest.mark.parametrize(
    ('arch', 'input_size', 'image'),
    [
        (MIXED, 12, (12, 12)),
        # the second fully connected layer is the third
        ('2c3-4f-3f', 9, (9, 9)),
        ('2c3-4f-3f', 9, (14, 11)),
        # larger than in training, and not square
        (MIXED, 12, (20, 13)),
        # without a fully connected layer any size will do
        ('4c3-3c5-2c3', 32, (7, 10)),
        ('4c3-2f', 6, (6, 6)),
        # a pooling wider than what it reads
        ('2c3-3c1-4f', 4, (4, 4)),
        ('4c3', 5, (5, 5)),
    ],
)
def test_outputs_and_gradient(arch, input_size, image):
    net = build(arch, input_size=input_size).eval()
    image = torch.randn(2, 3, *image).double().requires_grad_()
    outs = net(image)
    want = [reference(net, arch, x) for x in image.detach().numpy()]
    for found, *stages in zip(outs, *want, strict=True):
        np.testing.assert_allclose(found.detach(), stages, atol=1e-12)
        # ReLU has been at work, and left something
        assert 0 < (found > 0).double().mean() < 1

    # along a direction, by differences; ReLU and maxima have no corner there
    total = sum((out**2).sum() for out in outs)
    total.backward()
    step = 1e-6 * np.random.RandomState(0).randn(*image.shape)
    moved = [
        sum(
            (stage**2).sum()
            for x in image.detach().numpy() + sign * step
            for stage in reference(net, arch, x)
        )
        for sign in (1, -1)
    ]
    along = (image.grad.numpy() * step).sum()
    assert along == pytest.approx((moved[0] - moved[1]) / 2, rel=1e-6)


def test_dropout_in_training_after_fully_connected_layers_only():
    # two fully connected layers, of enough channels to count the zeros
    net = build('3c5-4c3-2c1-900f-800f', input_size=12, dropout=0.25).train()
    image = torch.randn(1, 3, 12, 12).double()
    outs = net(image)
    want = reference(net, '3c5-4c3-2c1-900f-800f', image[0].numpy())
    for found, stage in zip(outs[:3], want[:3], strict=True):
        np.testing.assert_allclose(found[0].detach(), stage, atol=1e-12)

    dropped = outs[3].detach().flatten().numpy()
    again = np.maximum(
        net.stage5.conv.weight.detach().flatten(1).numpy() @ dropped
        + net.stage5.conv.bias.detach().numpy(),
        0,
    )
    last = outs[4].detach().flatten().numpy()
    for found, whole in ((dropped, want[3].flatten()), (last, again)):
        alive = whole > 0
        left = found[alive] / whole[alive]
        assert not found[~alive].any()
        np.testing.assert_allclose(left[left > 0], 1 / 0.75, rtol=1e-9)
        # five standard deviations
        slack = 5 * np.sqrt(0.25 * 0.75 / alive.sum())
        assert np.mean(left == 0) == pytest.approx(0.25, abs=slack)

    net.eval()
    for found, stage in zip(net(image), want, strict=True):
        np.testing.assert_allclose(found[0].detach(), stage, atol=1e-12)


def test_default_dropout_is_a_half():
    net = ExemplarNet('4c3-4000f', input_size=2).train()
    with torch.no_grad():
        net.stage2.conv.bias.fill_(1)
        net.stage2.conv.weight.zero_()
    (out,) = net(torch.zeros(1, 3, 2, 2))
    values, counts = out.unique(return_counts=True)
    assert values.tolist() == [0, 2]
    # five standard deviations
    assert abs(counts[0].item() - 2000) < 5 * np.sqrt(1000)


@pytest.mark.parametrize('frozen', [-1, 0, 2, 4])
def test_frozen_stages(frozen):
    net = build(MIXED, input_size=12, frozen_stages=frozen).train()
    before = {name: v.clone() for name, v in net.state_dict().items()}
    image = torch.randn(2, 3, 12, 12).double().requires_grad_()
    sum(out.sum() for out in net(image)).backward()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, weight_decay=0.1)
    optimizer.step()
    changed = {
        name.split('.')[0]
        for name, value in net.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {f'stage{i}' for i in range(frozen + 2, 6)}
    # nor is anything dropped in a frozen one
    dropping = [
        i for i in (4, 5) if getattr(net, f'stage{i}').dropout.training
    ]
    assert dropping == [i for i in (4, 5) if i > frozen + 1]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='64c4'), '64c4 in.*of odd size'),
        (dict(arch='8c3-64c4-5f'), '64c4 in.*of odd size'),
        (dict(arch='0c5'), '0c5 in.*must be positive'),
        (dict(arch='8c0'), '8c0 in.*of odd size'),
        (dict(arch='8c3-0f'), '0f in.*must be positive'),
        (dict(arch='f-c'), "arch='f-c' of ExemplarNet: conv"),
        (dict(arch=''), "arch='' of ExemplarNet: conv"),
        (dict(arch='64x5'), "arch='64x5' of ExemplarNet: conv"),
        (dict(arch='64c5-'), "arch='64c5-' of ExemplarNet: conv"),
        (dict(arch='64c5 -8f'), "arch='64c5 -8f' of ExemplarNet: conv"),
        (dict(arch='64c5f'), "arch='64c5f' of ExemplarNet: conv"),
        (dict(arch='128f'), 'conv.*such as 64c5, then fully'),
        (dict(arch='8c3-9f-8c3'), 'conv.*such as 64c5, then fully'),
        (dict(input_size=0), '64c5 in.*left of input_size=0'),
        (dict(arch='8c3-9c3', input_size=1), '9c3 in.*left of input_size=1'),
        (
            dict(arch='8c3-9c3-7c3-5f', input_size=2),
            '7c3 in.*left of input_size=2',
        ),
        (dict(out_indices=4), r'4 stages.*-4\.\.3'),
        (dict(frozen_stages=4), 'frozen_stages=4 of ExemplarNet'),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ExemplarNet(**kwargs)


def test_smallest_images():
    # 4 to 2 to 1
    net = build('2c3-3c3-4c3-2f', input_size=4)
    assert net.stage4.conv.weight.shape == (2, 4, 1, 1)
    net = build('2c3-2c3', input_size=2)
    assert net(torch.zeros(1, 3, 2, 2).double())[1].shape == (1, 2, 1, 1)


def test_initialization_by_stage():
    stds = dict(stage1=0.05, stage2=0.02, stage3=0.01, stage4=0.03)
    torch.manual_seed(0)
    net = ExemplarNet(
        '64c5-32c5-32c5-64f',
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            bias=0.1,
            override=[
                dict(name=name, type='Normal', std=std, bias=0.1)
                for name, std in stds.items()
                if std != 0.01
            ],
        ),
    )
    net.init_weights()
    for name, std in stds.items():
        conv = getattr(net, name).conv
        weight = conv.weight.detach().double()
        count = weight.numel()
        # five standard deviations of each estimate
        assert weight.std().item() == pytest.approx(
            std, rel=5 / np.sqrt(2 * count)
        )
        assert weight.mean().item() == pytest.approx(
            0, abs=5 * std / np.sqrt(count)
        )
        assert torch.equal(conv.bias, torch.full_like(conv.bias, 0.1))


def test_stages_past_the_last_output_are_not_run():
    net = build(MIXED, input_size=12, out_indices=(0, -4))
    net.stage3 = net.stage4 = net.stage5 = None
    outs = net(torch.zeros(1, 3, 12, 12).double())
    assert [tuple(out.shape) for out in outs] == [
        (1, 3, 12, 12),
        (1, 4, 6, 6),
    ]


@pytest.mark.parametrize('size', range(2, 14))
def test_a_fully_connected_layer_reads_all_that_is_left(size):
    net = build('2c3-3f', input_size=size)
    out = net(torch.zeros(1, 3, size, size).double())[1]
    assert out.shape == (1, 3, 1, 1)
    # maxima at 0, 2, 4, ...; the last may be cut off
    assert net.stage2.conv.kernel_size == (size // 2, size // 2)


def test_images_that_are_too_small():
    net = build(SMALL)
    with pytest.raises(ValueError, match=r'input_size=32.*of 40x31 pixels'):
        net(torch.zeros(1, 3, 31, 40).double())
    # what comes before the fully connected layer takes any
    first = build(SMALL, out_indices=(0, 1))
    assert first(torch.zeros(1, 3, 31, 5).double())[1].shape == (1, 64, 15, 2)
