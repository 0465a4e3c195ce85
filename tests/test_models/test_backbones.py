import pytest
import torch
from torch import nn

from mm_rotssl.models import NIN, AlexNetBN


def shapes(outs):
    return [tuple(out.shape[1:]) for out in outs]


@pytest.mark.parametrize('num_stages', [3, 4, 5])
def test_nin_shapes_of_the_paper(num_stages):
    net = NIN(num_stages, out_indices=range(num_stages)).eval()
    outs = net(torch.zeros(1, 3, 32, 32))
    assert shapes(outs) == [(96, 16, 16)] + [(192, 8, 8)] * (num_stages - 1)


def test_nin_layers_in_order():
    convs = [m for m in NIN().modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0]) for m in convs] == [
        (192, 5),
        (160, 1),
        (96, 1),
        (192, 5),
        (192, 1),
        (192, 1),
        (192, 3),
        (192, 1),
        (192, 1),
        (192, 3),
        (192, 1),
        (192, 1),
    ]
    assert all(m.bias is None for m in convs)
    # 0.97 million weights in the four blocks of the paper's network
    weights = 3 * 25 * 192 + 192 * 160 + 160 * 96
    weights += 96 * 25 * 192 + 2 * 192 * 192
    weights += 2 * (192 * 9 * 192 + 2 * 192 * 192)
    assert sum(m.weight.numel() for m in convs) == weights
    pools = [
        type(m)
        for m in NIN().modules()
        if isinstance(m, (nn.MaxPool2d, nn.AvgPool2d))
    ]
    assert pools == [nn.MaxPool2d, nn.AvgPool2d]


def test_nin_width():
    outs = NIN(base_channels=24, out_indices=(0, 1)).eval()(
        torch.zeros(1, 3, 32, 32)
    )
    assert shapes(outs) == [(12, 16, 16), (24, 8, 8)]


def test_alexnet_shapes_of_the_paper():
    net = AlexNetBN(out_indices=range(6)).eval()
    outs = net(torch.zeros(1, 3, 224, 224))
    assert shapes(outs) == [
        (64, 55, 55),
        (192, 27, 27),
        (384, 13, 13),
        (256, 13, 13),
        (256, 13, 13),
        (4096,),
    ]
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert [tuple(m.weight.shape) for m in linear] == [
        (4096, 9216),
        (4096, 4096),
    ]
    assert all(m.bias is None for m in linear)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.bias is not None for m in convs)
    # normalization everywhere, dropout nowhere
    norms = [
        m
        for m in net.modules()
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))
    ]
    assert len(norms) == 7
    assert not any(isinstance(m, nn.Dropout) for m in net.modules())


def test_alexnet_other_size():
    net = AlexNetBN(input_size=67)
    assert net.eval()(torch.zeros(1, 3, 67, 67))[0].shape == (1, 4096)
    with pytest.raises(ValueError, match='input_size'):
        net(torch.zeros(1, 3, 100, 100))
    with pytest.raises(ValueError, match='at least 63'):
        AlexNetBN(input_size=62)
    # without the fully connected block any size will do
    AlexNetBN(out_indices=4).eval()(torch.zeros(1, 3, 100, 130))


def test_stages_past_the_last_output_are_not_run():
    net = NIN(out_indices=(0, 1))
    net.stage3 = net.stage4 = None
    assert len(net(torch.randn(2, 3, 32, 32))) == 2


def test_frozen_stages_stay_as_they_are():
    net = NIN(base_channels=6, frozen_stages=1).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net(torch.randn(4, 3, 32, 32))[0].sum().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    changed = {
        k.split('.')[0]
        for k, v in net.state_dict().items()
        if not torch.equal(v, before[k])
    }
    assert changed == {'stage3', 'stage4'}


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(out_indices=4), r'4 stages.*-4\.\.3'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=4), 'frozen_stages=4'),
        (dict(num_stages=2), 'num_stages=2'),
        (dict(base_channels=20), 'multiple of 6'),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NIN(**kwargs)
