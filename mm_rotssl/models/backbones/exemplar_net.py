import re
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from mm_rotssl.registry import MODELS

from .staged_backbone import StagedBackbone

_LAYER = re.compile(r'(\d+)(?:c(\d+)|f)')


@MODELS.register_module()
class ExemplarNet(StagedBackbone):
    """The networks of Exemplar-CNN.

    Every layer is a stage: convolutions of stride 1 that keep the size, and
    fully connected layers, each with ReLU, and no normalization. The second
    and the third layer, unless their input is a vector, begin with a max
    pooling of 3x3 and stride 2 that rounds the size up (32 to 16 to 8), so
    that each stage gives its output before pooling, where the paper takes
    features. A fully connected layer is a convolution as large as its input
    in training, and so is defined on larger images too.

    Source: Dosovitskiy et al., *Discriminative Unsupervised Feature Learning
    with Exemplar Convolutional Neural Networks*, NIPS 2014
    (https://arxiv.org/abs/1406.6909), section 3.1, and the authors' code,
    from which the pooling is taken (the paper says 2x2). The classifier is
    not part of the backbone.

    Args:
        arch (str): Layers, as in the paper: ``64c5`` is a convolution of 64
            channels and 5x5, ``512f`` a fully connected layer of 512.
            '64c5-64c5-128f', '64c5-128c5-256c5-512f' and
            '92c5-256c5-512c5-1024f' are the paper's. Defaults to the second.
        in_channels (int): Channels of the images. Defaults to 3.
        input_size (int): Side of the training images in pixels. Defaults
            to 32.
        dropout (float): Dropout probability after each fully connected
            layer. Defaults to 0.5.
        out_indices (int | Sequence[int]): Stages to return, counted from 0.
            Defaults to -1, the last.
        frozen_stages (int): Index of the last frozen stage, whose weights
            are fixed and which stays in eval mode; -1 for none. Defaults to
            -1.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If ``arch`` can't be read, ``input_size`` leaves nothing
            of the image, or an index names no stage.
    """

    def __init__(
        self,
        arch: str = '64c5-128c5-256c5-512f',
        in_channels: int = 3,
        input_size: int = 32,
        dropout: float = 0.5,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        layers = [_LAYER.fullmatch(layer) for layer in arch.split('-')]
        kinds = ''.join(
            '?' if m is None else 'fc'[m[2] is not None] for m in layers
        )
        if not re.fullmatch('c+f*', kinds):
            raise ValueError(
                f"arch='{arch}' of ExemplarNet: convolutions such as 64c5, "
                'then fully connected layers such as 512f, joined by "-".'
            )
        stages = []
        side = input_size
        for number, layer in enumerate(filter(None, layers)):
            channels = int(layer[1])
            modules: OrderedDict[str, nn.Module] = OrderedDict()
            # no pooling of the vectors that a fully connected layer gives
            if number in (1, 2) and kinds[number - 1] == 'c':
                modules['pool'] = nn.MaxPool2d(3, 2, ceil_mode=True)
                side = -(-(side - 3) // 2) + 1
            kernel = int(layer[2] or max(side, 1))
            if side < 1 or channels < 1 or (layer[2] and kernel % 2 == 0):
                raise ValueError(
                    f"{layer[0]} in arch='{arch}' of ExemplarNet: "
                    + (
                        f'nothing is left of input_size={input_size}.'
                        if side < 1
                        else 'channels must be positive and convolutions '
                        'of odd size.'
                    )
                )
            padding = kernel // 2 if layer[2] else 0
            modules['conv'] = nn.Conv2d(
                in_channels, channels, kernel, padding=padding
            )
            modules['relu'] = nn.ReLU(inplace=True)
            if not layer[2]:
                modules['dropout'] = nn.Dropout(dropout)
                side = 1
            stages.append(nn.Sequential(modules))
            in_channels = channels
        super().__init__(stages, out_indices, frozen_stages, init_cfg)
        # the kernel of a fully connected layer covers the training images
        used = kinds[: max(self.out_indices) + 1]
        self.min_size = input_size if 'f' in used else 1

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the stages up to the last of ``out_indices``.

        Args:
            x (Tensor): Images (N, in_channels, H, W); for the fully
                connected layers each side is at least ``input_size`` pixels.

        Returns:
            tuple[Tensor, ...]: The outputs of ``out_indices``, in the order
            of the stages.

        Raises:
            ValueError: If the images are smaller.
        """
        if min(x.shape[2:]) < self.min_size:
            raise ValueError(
                f'ExemplarNet(input_size={self.min_size}) was handed '
                f'images of {x.shape[3]}x{x.shape[2]} pixels. Enlarge them, '
                'or set model.backbone.input_size to the size of the '
                'training images.'
            )
        return super().forward(x)
