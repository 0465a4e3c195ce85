import math

import numpy as np
import torch
from torch import nn

from mm_rotssl.models import FlattenNeck, NINConvNeck


def test_flatten_takes_all_of_the_last_stage():
    maps = torch.randn(2, 3, 4, 5)
    (flat,) = FlattenNeck()((torch.zeros(2, 1, 1, 1), maps))
    np.testing.assert_array_equal(flat, maps.numpy().reshape(2, -1))


def test_conv_probe():
    torch.manual_seed(0)
    neck = NINConvNeck(64, 96)
    convs = [m for m in neck.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.kernel_size[0]) for c in convs] == [
        (64, 3),
        (96, 1),
        (96, 1),
    ]
    for conv in convs:
        expected = math.sqrt(2 / (conv.kernel_size[0] ** 2 * 96))
        assert abs(conv.weight.std().item() / expected - 1) < 0.05
    maps = torch.randn(2, 64, 8, 8)
    (pooled,) = neck.eval()((maps,))
    # everything before the pooling keeps the size, and the mean is last
    torch.testing.assert_close(
        pooled, neck.layers[:3](maps).mean((2, 3)), rtol=1e-4, atol=1e-6
    )
    assert pooled.shape == (2, 96)
