import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import nn

from mm_rotssl.registry import MODELS


@MODELS.register_module()
class InstanceDiscriminationHead(BaseModule):
    r"""Tell every image of the dataset from the others.

    A linear layer and L2 normalization give the feature :math:`v`, compared
    with the memory bank's row of the image and with those of ``num_negatives``
    images drawn at random, the image itself perhaps among them, by
    noise-contrastive estimation. The rows are constants; after the loss the
    image's row is moved toward :math:`v`.

    Source: Wu et al., *Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination*, CVPR 2018, with the settings of Rotation
    Feature Decoupling, CVPR 2019, whose code took it over. Its proximal
    regularization (equation 9) is, there as here, the momentum of the bank.
    The official gradient is written by hand and the update done in the
    backward pass; that of autograd is the same.

    Args:
        in_channels (int): Length of the vectors that come in.
        memory (dict): A ``MemoryBank``. Defaults to one with its defaults.
        loss (dict): An ``NCELoss``. Defaults to one with its defaults.
        num_negatives (int): K. Defaults to 4096.
        temperature (float): Defaults to 0.07.
        shared_negatives (bool): Draw K negatives once for the whole batch,
            not for each image. The expectation of loss and gradient is the
            same; instead of B * K rows only K are read from memory. Defaults
            to False, the official way.
        init_cfg (dict, optional): Initialization. Defaults to None.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        memory: dict | None = None,
        loss: dict | None = None,
        num_negatives: int = 4096,
        temperature: float = 0.07,
        shared_negatives: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if in_channels < 1 or num_negatives < 1 or temperature <= 0:
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
            dict[str, Tensor]: ``loss``, a float32 scalar.

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
            positive = (self.memory.rows(indices) * vectors).sum(1)
            loss = self.loss_module(
                positive / self.temperature,
                self._negatives(vectors) / self.temperature,
                rows,
            )
        self.memory.update(indices, vectors.detach())
        return dict(loss=loss)

    def _negatives(self, vectors: torch.Tensor) -> torch.Tensor:
        """Draw negatives, and give their dot products (B, K)."""
        rows, device = len(self.memory), vectors.device
        if self.shared_negatives:
            drawn = torch.randint(rows, (self.num_negatives,), device=device)
            return vectors @ self.memory.rows(drawn).T
        shape = (len(vectors), self.num_negatives)
        drawn = torch.randint(rows, shape, device=device)
        products = torch.bmm(self.memory.rows(drawn), vectors[:, :, None])
        return products.squeeze(2)
