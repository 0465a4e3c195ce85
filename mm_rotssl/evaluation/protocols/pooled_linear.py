"""A linear classifier on the pooled map of each stage."""

from dataclasses import dataclass

from torch import nn

from .trained_probe import TrainedProbe


@dataclass(frozen=True)
class PooledLinear(TrainedProbe):
    """A linear classifier on about 9,000 numbers of each stage's map.

    Source: the official code of RotNet (Gidaris et al., ICLR 2018,
    https://arxiv.org/abs/1803.07728), whose settings are the defaults: 35
    epochs, batches of 192, rates of 0.01, 0.002, 0.0004 and 0.00008 up to
    epoch 5, 15, 25 and 35, Nesterov momentum 0.9, weight decay 5e-4, and
    before the classifier batch normalization by channel, without affine
    parameters. It takes the largest value of a cell; here it is the mean, as
    by Zhang et al. (ECCV 2016) and mmselfsup, and the first weights are
    those of mmselfsup, of standard deviation 0.01. RotNet's, of sqrt(2 /
    classes), are for data in plenty: what no training image reaches of them
    is noise to the end.

    Where images come from a cache they are not cropped and mirrored at
    random, as both have it in training. Reported with that on ImageNet,
    top-1 in percent: 18.8, 31.7, 38.7, 38.2, 36.5 for conv1 to conv5 of
    RotNet's AlexNet; 12.15, 31.99, 44.57, 54.20, 45.94 for the five layers
    of mmselfsup's rotation-pred ResNet-50 (90 epochs, weight decay 1e-4).

    Args:
        epochs (int): Defaults to 35.
        batch_size (int): Defaults to 192.
        lr (float): Defaults to 0.01.
        weight_decay (float): Defaults to 5e-4.
        values (int): Defaults to 9,000.
    """

    epochs: int = 35
    batch_size: int = 192
    lr: float = 0.01
    weight_decay: float = 5e-4
    values: int = 9000

    lr_steps = (5, 15, 25)
    length = 35

    quick = False
    name = 'pooled-linear'
    title = 'Linear probe of pooled maps'
    about = (
        'The frozen map of each stage is averaged over cells to about 9,000 '
        'numbers, normalized (batch normalization without affine '
        'parameters), and classified by a linear layer that is trained by '
        'SGD: the multi-layer protocol of RotNet (Gidaris et al., ICLR '
        '2018), with cells averaged as by mmselfsup. All stages get about '
        'as many numbers, so early ones, with few channels and large maps, '
        'are at no disadvantage, and where something is in an image '
        'counts. Training images are prepared as test images, not cropped '
        'and mirrored at random as in the papers, whose figures are '
        'somewhat higher for it.'
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
        linear = nn.Linear(channels * side**2, num_classes)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        return nn.Sequential(
            nn.Unflatten(1, (channels, side, side)),
            nn.BatchNorm2d(channels, affine=False),
            nn.Flatten(),
            linear,
        )
