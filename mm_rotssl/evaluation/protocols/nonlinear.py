"""Non-linear classifiers on the map of each stage."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from mm_rotssl.models import FlattenNeck, NINConvNeck
from mm_rotssl.registry import MODELS

from .trained_probe import OnStage, TrainedProbe

# of the official code: normal, of variance 2 / outputs
INIT = dict(
    type='Kaiming', layer='Linear', mode='fan_out', nonlinearity='relu'
)


def _build_head(**settings: Any) -> Any:
    head = MODELS.build(dict(init_cfg=INIT, **settings))
    head.init_weights()
    return head


@dataclass(frozen=True)
class MLPProbe(TrainedProbe):
    """A classifier with two hidden layers on each stage's map.

    Source: section 4.1 of RotNet (Gidaris et al., ICLR 2018,
    https://arxiv.org/abs/1803.07728) and its official code, whose recipe are
    the defaults, as in ``configs/rotnet/probes/nin-stage2-nonlinear_1xb128-
    steplr-100e_cifar10.py``: 100 epochs, batches of 128, rates of 0.1, 0.02,
    0.004 and 0.0008 up to epoch 20, 40, 45 and 100, Nesterov momentum 0.9,
    weight decay 5e-4. It is trained there on images that are cropped and
    mirrored at random, and the best epoch on the test set is reported; here
    images come from a cache, and the last epoch counts. Reported on
    CIFAR-10, for stages 1 to 4 of the NIN of four: 85.07, 89.06, 86.21,
    61.73 %.

    Args:
        epochs (int): Defaults to 100.
        batch_size (int): Defaults to 128.
        lr (float): Defaults to 0.1.
        weight_decay (float): Defaults to 5e-4.
        values (int): The paper's maps, of up to 24,576 numbers, stay as they
            are; larger ones are averaged. Defaults to 25,000.
        hidden (int, optional): Width of both layers. Defaults to None, 20
            times the number of classes and at most 2,048, as in the official
            code: 200 for ten classes.
    """

    epochs: int = 100
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    values: int = 25_000
    hidden: int | None = None

    lr_steps = (20, 40, 45)
    length = 100

    quick = False
    name = 'mlp'
    title = 'Non-linear probe'
    about = (
        'Two hidden layers with batch normalization and ReLU, 20 times as '
        'wide as there are classes, and a linear one classify the whole '
        'frozen map of each stage: the non-linear probe of RotNet (Gidaris '
        'et al., ICLR 2018, section 4.1). It asks what a stage knows, not '
        'whether that is linearly separable. Training images are prepared '
        'as test images, not cropped and mirrored at random as in the '
        'paper, and the last epoch counts, not the best on the test '
        'images.'
    )

    def build(self, channels: int, side: int, num_classes: int) -> nn.Module:
        """See base class.

        Args:
            channels (int): Of the stage.
            side (int): Cells of its map along a side.
            num_classes (int): Number of classes.

        Returns:
            nn.Module: Maps (N, channels * side * side) to logits.
        """
        width = self.hidden or min(20 * num_classes, 2048)
        head = _build_head(
            type='mmpretrain.StackedLinearClsHead',
            num_classes=num_classes,
            in_channels=channels * side**2,
            mid_channels=[width, width],
            norm_cfg=dict(type='BN1d'),
        )
        return OnStage((channels, side, side), FlattenNeck(), head)


@dataclass(frozen=True)
class ConvProbe(TrainedProbe):
    """A convolutional classifier on each stage's map.

    Three convolutions, of 3 × 3 and twice 1 × 1, with batch normalization
    and ReLU, global average pooling and a linear layer: "RotNet + conv" of
    section 4.1 of RotNet (https://arxiv.org/abs/1803.07728), with the recipe
    of its official code, as in ``configs/rotnet/probes/nin-stage2-conv_
    1xb128-steplr-100e_cifar10.py``: as for :class:`MLPProbe`, with rates up
    to epoch 35, 70, 85 and 100. Reported on CIFAR-10, for stage 2 of the NIN
    of four: 91.16 %, 92.80 % supervised.

    Args:
        epochs (int): Defaults to 100.
        batch_size (int): Defaults to 128.
        lr (float): Defaults to 0.1.
        weight_decay (float): Defaults to 5e-4.
        values (int): See :class:`MLPProbe`. Defaults to 25,000.
        channels (int): Of the convolutions. Defaults to 192.
    """

    epochs: int = 100
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    values: int = 25_000
    channels: int = 192

    lr_steps = (35, 70, 85)
    length = 100
    needs_map = True

    quick = False
    name = 'conv'
    title = 'Convolutional probe'
    about = (
        'Three convolutions with batch normalization and ReLU, average '
        'pooling and a linear layer classify the frozen map of each stage: '
        '"RotNet + conv" of Gidaris et al., ICLR 2018, section 4.1, which '
        'asks how good a start a stage is for what follows it in a '
        'network. Missing for stages without a map. Training images are '
        'prepared as test images, not cropped and mirrored at random as in '
        'the paper, and the last epoch counts, not the best on the test '
        'images.'
    )

    def build(self, channels: int, side: int, num_classes: int) -> nn.Module:
        """See base class.

        Args:
            channels (int): Of the stage.
            side (int): Cells of its map along a side.
            num_classes (int): Number of classes.

        Returns:
            nn.Module: Maps (N, channels * side * side) to logits.
        """
        head = _build_head(
            type='mmpretrain.LinearClsHead',
            num_classes=num_classes,
            in_channels=self.channels,
        )
        neck = NINConvNeck(channels, self.channels)
        return OnStage((channels, side, side), neck, head)
