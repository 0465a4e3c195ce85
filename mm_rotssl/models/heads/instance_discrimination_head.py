import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import nn

from mm_rotssl.registry import MODELS

from ..losses import NCELoss


@MODELS.register_module()
class InstanceDiscriminationHead(BaseModule):
    r"""Tell every image of the dataset from the others.

    A linear layer and L2 normalization give the feature :math:`v`, compared
    with the memory bank's row of the image and with those of ``num_negatives``
    images drawn at random, the image itself perhaps among them, or with all
    rows. The rows are constants; after the loss the image's row is moved
    toward :math:`v`. With the rows :math:`b_j` of n images and a temperature
    T the scores are :math:`s_j = v \cdot b_j / T`, and the loss one of

    - the softmax over all images, :math:`\ln \sum_j e^{s_j} - s_i`
      (equation 2; ``num_negatives=None`` and a ``CrossEntropyLoss``): exact,
      for as many rows as a batch can be compared with;
    - the same over the image and its negatives, as the authors have it since
      they left NCE (a number and a ``CrossEntropyLoss``);
    - noise-contrastive estimation (a number and an ``NCELoss``), the paper's.

    Source: Wu et al., *Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination*, CVPR 2018, with the settings of Rotation
    Feature Decoupling, CVPR 2019, whose code took it over. Its proximal
    regularization (equation 9) is, there as here, the momentum of the bank.
    The official gradient is written by hand and the update done in the
    backward pass; that of autograd is the same.

    Args:
        in_channels (int): Length of the vectors that come in.
        memory (dict): A ``MemoryBank``. Defaults to one with its defaults.
        loss (dict): An ``NCELoss`` or mmpretrain's ``CrossEntropyLoss``.
            Defaults to an ``NCELoss`` with its defaults.
        num_negatives (int, optional): K; None: all rows, for a
            ``CrossEntropyLoss``. Defaults to 4096.
        temperature (float): Defaults to 0.07.
        shared_negatives (bool): Draw K negatives once for the whole batch,
            not for each image. The expectation of loss and gradient is the
            same; instead of B * K rows only K are read from memory. Defaults
            to False, the official way.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If a number is not positive, or missing for NCE.
    """

    def __init__(
        self,
        in_channels: int,
        memory: dict | None = None,
        loss: dict | None = None,
        num_negatives: int | None = 4096,
        temperature: float = 0.07,
        shared_negatives: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if (
            in_channels < 1
            or (num_negatives is not None and num_negatives < 1)
            or temperature <= 0
        ):
            raise ValueError(
                f'in_channels={in_channels}, num_negatives={num_negatives} '
                f'and temperature={temperature} of InstanceDiscriminationHead '
                'must be positive.'
            )
        self.memory = MODELS.build(
            {'type': 'mm_rotssl.MemoryBank', **(memory or {})}
        )
        self.loss_module = MODELS.build(
            {'type': 'mm_rotssl.NCELoss', **(loss or {})}
        )
        self.by_nce = isinstance(self.loss_module, NCELoss)
        if self.by_nce and num_negatives is None:
            raise ValueError(
                'num_negatives=None of InstanceDiscriminationHead compares '
                'with all images, which an NCELoss does not: set a number, '
                "or loss=dict(type='mmpretrain.CrossEntropyLoss')."
            )
        self.fc = nn.Linear(in_channels, self.memory.feat_dim)
        self.in_channels = in_channels
        self.num_negatives = num_negatives
        self.temperature = temperature
        self.shared_negatives = shared_negatives

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Project to the space of the bank.

        Args:
            feats (Tensor): (B, in_channels).

        Returns:
            Tensor: Of length 1, float32 (B, D).
        """
        return F.normalize(self.fc(feats).float(), dim=1)

    def loss(
        self, feats: torch.Tensor, indices: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Compute the loss and update the bank.

        Args:
            feats (Tensor): (B, in_channels).
            indices (Tensor): Indices of the images, int64 (B,).

        Returns:
            dict[str, Tensor]: ``loss``, a float32 scalar; to be logged,
            ``chance_ratio``, the loss divided by that of scores that are all
            alike. It falls from 1; far above it NCE diverges.

        Raises:
            RuntimeError: If the bank has no rows yet.
            IndexError: If an index is beyond them.
        """
        rows = len(self.memory)
        if not rows:
            raise RuntimeError(
                'The memory bank does not know the training set. Add '
                "dict(type='mm_rotssl.BindDatasetHook') to custom_hooks, or "
                'set memory.length of the head to the number of images.'
            )
        if int(indices.max()) >= rows:
            raise IndexError(
                f'An image has sample_idx={int(indices.max())}, and the '
                f'memory bank {rows} rows. Its length must be the number of '
                'images; leave memory.length out to have it filled in.'
            )
        vectors = self(feats)
        with torch.autocast(vectors.device.type, enabled=False):
            loss, chance = self._compare(vectors, indices)
        self.memory.update(indices, vectors.detach())
        return dict(loss=loss, chance_ratio=loss.detach() / chance)

    def _compare(
        self, vectors: torch.Tensor, indices: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """The loss, and that of scores that are all alike."""
        rows, number = len(self.memory), self.num_negatives
        if number is None:
            # a copy: the bank is updated before the backward pass reads it
            bank = self.memory.feature_bank.to(torch.float32, copy=True)
            scores = vectors @ bank.T
            loss = self.loss_module(scores / self.temperature, indices)
            return loss, math.log(rows)
        positive = (self.memory.rows(indices) * vectors).sum(1)
        positive = positive / self.temperature
        negatives = self._negatives(vectors, number) / self.temperature
        if self.by_nce:
            loss = self.loss_module(positive, negatives, rows)
            chance = math.log1p(number) + number * math.log1p(1 / number)
            return loss, chance
        scores = torch.cat([positive[:, None], negatives], 1)
        loss = self.loss_module(scores, torch.zeros_like(indices))
        return loss, math.log1p(number)

    def _negatives(self, vectors: torch.Tensor, number: int) -> torch.Tensor:
        """Draw negatives, and give their dot products (B, K)."""
        rows, device = len(self.memory), vectors.device
        if self.shared_negatives:
            drawn = torch.randint(rows, (number,), device=device)
            return vectors @ self.memory.rows(drawn).T
        shape = (len(vectors), number)
        drawn = torch.randint(rows, shape, device=device)
        products = torch.bmm(self.memory.rows(drawn), vectors[:, :, None])
        return products.squeeze(2)
