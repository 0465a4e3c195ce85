import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, sync_random_seed

from mm_rotssl.registry import MODELS

from ..utils import DatasetBound

DTYPES = ('float32', 'float16', 'bfloat16')


@MODELS.register_module()
class MemoryBank(DatasetBound):
    r"""One feature vector for each image of a dataset.

    Rows are initialized uniformly in :math:`\pm 1/\sqrt{D/3}`, so with length
    1 on average; an image's row is moved toward its feature whenever it is
    seen, and has length 1 from then on:

    .. math:: b \leftarrow \frac{m b + (1 - m) v}{\|m b + (1 - m) v\|}

    with the momentum as weight of the old value, as in the official code of
    instance discrimination (Wu et al., CVPR 2018). (In mmselfsup's
    ``SimpleMemory`` it is the weight of the new one.)

    All rows are on every process and are the same there: updates are
    gathered. A step touches only the rows that it reads and writes. The bank
    is in the checkpoint: 656 MB for 1.28 million rows of 128 numbers, half of
    that in float16.

    Args:
        feat_dim (int): Length of a row. Defaults to 128.
        length (int, optional): Number of rows. Defaults to None: that of the
            dataset (with ``BindDatasetHook``) or of the checkpoint.
        momentum (float): Weight `m` of the old value. Defaults to 0.5.
        dtype (str): Of the stored rows: 'float32', 'float16' or 'bfloat16'.
            All arithmetic is in float32. Defaults to 'float32'.

    Raises:
        ValueError: If a number is out of range or ``dtype`` another one.
    """

    feature_bank: torch.Tensor

    def __init__(
        self,
        feat_dim: int = 128,
        length: int | None = None,
        momentum: float = 0.5,
        dtype: str = 'float32',
    ) -> None:
        super().__init__()
        if feat_dim < 1 or (length is not None and length < 2):
            raise ValueError(
                f'feat_dim={feat_dim} and length={length} of MemoryBank: at '
                'least 1 number and 2 rows.'
            )
        if not 0 <= momentum < 1:
            raise ValueError(
                f'momentum={momentum} of MemoryBank must be in 0..1; it is '
                'the weight of the old value.'
            )
        if dtype not in DTYPES:
            raise ValueError(
                f"dtype='{dtype}' of MemoryBank: one of {', '.join(DTYPES)}."
            )
        self.feat_dim = feat_dim
        self.momentum = momentum
        self.dtype = getattr(torch, dtype)
        self.fixed_length = length
        empty = torch.empty(0, feat_dim, dtype=self.dtype)
        self.register_buffer('feature_bank', empty)
        if length is not None:
            self._reset(length)

    def __len__(self) -> int:
        return len(self.feature_bank)

    def _reset(self, length: int) -> None:
        """Make random rows, the same on all processes."""
        generator = torch.Generator().manual_seed(sync_random_seed())
        bank = torch.rand(length, self.feat_dim, generator=generator)
        bank.mul_(2).sub_(1).div_(math.sqrt(self.feat_dim / 3))
        self.feature_bank = bank.to(self.feature_bank.device, self.dtype)

    def bind_dataset(self, names: Sequence[str]) -> None:
        """Give each image of a dataset a row.

        Args:
            names (Sequence[str]): Of its images, by index.

        Raises:
            ValueError: If their number is not the configured ``length``.
        """
        if self.fixed_length not in (None, len(names)):
            raise ValueError(
                f'The memory bank has length={self.fixed_length} rows, and '
                f'the training set {len(names)} different images. Leave '
                'length out, or set it to that.'
            )
        if self.fixed_length is None:
            self._reset(len(names))
        super().bind_dataset(names)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Read rows.

        Args:
            indices (Tensor): Indices of images, int64 of any shape.

        Returns:
            Tensor: float32, one more dimension, of ``feat_dim``.
        """
        flat = self.feature_bank.index_select(0, indices.flatten())
        return flat.float().view(*indices.shape, self.feat_dim)

    @torch.no_grad()
    def update(self, indices: torch.Tensor, feats: torch.Tensor) -> None:
        """Move the rows of the images of all processes.

        Where an image comes more than once, in a padded last batch for
        instance, its last occurrence counts, in the order of the processes.

        Args:
            indices (Tensor): Indices of images, int64 (B,), B the same on
                all processes.
            feats (Tensor): Their features, of length 1, (B, feat_dim).
        """
        indices = torch.cat(all_gather(indices))
        feats = torch.cat(all_gather(feats.float().contiguous()))
        # With repeated indices index_copy_ would write any one of them, on
        # GPUs perhaps a different one in each process.
        indices, occurrence = indices.unique(return_inverse=True)
        places = torch.arange(len(occurrence), device=indices.device)
        last = torch.zeros_like(indices).scatter_reduce_(
            0, occurrence, places, 'amax'
        )
        old = self.rows(indices)
        new = self.momentum * old + (1 - self.momentum) * feats[last]
        new = F.normalize(new, dim=1).to(self.feature_bank.dtype)
        self.feature_bank.index_copy_(0, indices, new)

    @torch.no_grad()
    def fill(self, indices: torch.Tensor, feats: torch.Tensor) -> None:
        """Replace the rows of the images of all processes.

        Args:
            indices (Tensor): Indices of this process's images, int64 (B,),
                each once; B may differ.
            feats (Tensor): Their features, of length 1, (B, feat_dim). Of
                an image that several processes have, the mean counts.
        """
        new = torch.zeros_like(self.feature_bank, dtype=torch.float32)
        new[indices] = feats.float()
        filled = torch.zeros_like(new[:, :1])
        filled[indices] = 1
        all_reduce(new)
        all_reduce(filled)
        self.feature_bank = torch.where(
            filled > 0,
            F.normalize(new, dim=1).to(self.feature_bank.dtype),
            self.feature_bank,
        )

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: object
    ) -> None:
        saved = state_dict.get(f'{prefix}feature_bank')
        # not bound to a dataset yet, as when a checkpoint is evaluated
        if saved is not None and not len(self) and saved.dim() == 2:
            self.feature_bank = self.feature_bank.new_empty(
                len(saved), self.feat_dim
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
