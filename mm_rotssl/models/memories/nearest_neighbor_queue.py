import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_gather
from mmengine.logging import print_log

from mm_rotssl.registry import MODELS

from ..utils import DatasetBound

# Similarities that are held at a time: 256 MiB.
MAX_SIMILARITIES = 2**26


@MODELS.register_module()
class NearestNeighborQueue(DatasetBound):
    """The latest features of all processes, to take neighbors from.

    The nearest-neighbor augmentation of Self-Classifier (Amrani et al.,
    "Self-Supervised Classification Network", ECCV 2022): the feature of a
    view is replaced by the most similar one in a queue, which belongs to
    another image. As in the released code (``src/utils.py`` and
    ``train.py``), neighbors are taken only once the queue ``is_full``,
    and those of a batch before it is pushed: the caller sees to both.

    Every copy of the same image is excluded. The released code tests the
    best row alone, and takes the second one instead; with several copies of
    an image, in a queue longer than the dataset, that is the image again.

    The queue is the same on all processes. It is in the checkpoint, as
    tensors, so that a resumed run goes on with it: 134 MB of features and
    2 MB of indices with the default settings. A queue of another size in a
    checkpoint is left out, and reported as a mismatch.

    Args:
        length (int): Number of rows. Defaults to 262144, for ImageNet.
        dim (int): Length of a feature. Defaults to 128.

    Raises:
        ValueError: If one of them is less than 1.
    """

    feats: torch.Tensor
    indices: torch.Tensor
    pointer: torch.Tensor
    is_full: torch.Tensor

    def __init__(self, length: int = 262144, dim: int = 128) -> None:
        super().__init__()
        if length < 1 or dim < 1:
            raise ValueError(
                f'length={length} and dim={dim} of NearestNeighborQueue must '
                'be at least 1.'
            )
        self.length = length
        self.dim = dim
        self.register_buffer('feats', torch.zeros(length, dim))
        # of the images that the rows belong to; -1: of none
        self.register_buffer('indices', torch.full((length,), -1))
        # position of the row that is written next
        self.register_buffer('pointer', torch.tensor(0))
        self.register_buffer('is_full', torch.tensor(False))

    def bind_dataset(self, names: Sequence[str]) -> None:
        """Take note of the images; warn if the queue is longer than that.

        Args:
            names (Sequence[str]): Of its images, by index.
        """
        super().bind_dataset(names)
        if self.length > len(names):
            print_log(
                f'The nearest-neighbor queue has length={self.length}, and '
                f'the training set {len(names)} images: the queue holds '
                'images several times. Copies of an image are never its '
                'neighbors, so they cost memory and time for nothing. Set '
                f'length to at most {len(names)}.',
                'current',
                logging.WARNING,
            )

    @torch.no_grad()
    def nearest(
        self, feats: torch.Tensor, indices: torch.Tensor
    ) -> torch.Tensor:
        """Find the most similar row of another image for each feature.

        Args:
            feats (Tensor): Features of length 1, floating point (B, dim).
            indices (Tensor): Indices of their images, int64 (B,).

        Returns:
            Tensor: The rows with the highest dot product, in float32 as the
            products are, (B, dim), without gradient. The feature itself where
            the queue has no other image.

        Raises:
            ValueError: If the queue is not full yet, or a shape or a type is
                wrong.
        """
        self._check(feats, indices)
        if not self.is_full:
            raise ValueError(
                f'{int(self.pointer)} of {self.length} rows of the '
                'nearest-neighbor queue have been written. It has neighbors '
                'once it is full: ask is_full first.'
            )
        # in parts: similarities of a large batch to a long queue would take
        # gigabytes
        rows = max(1, MAX_SIMILARITIES // self.length)
        parts = zip(
            feats.float().split(rows), indices.split(rows), strict=True
        )
        with torch.autocast(feats.device.type, enabled=False):
            return torch.cat([self._nearest(*part) for part in parts])

    def _nearest(
        self, feats: torch.Tensor, indices: torch.Tensor
    ) -> torch.Tensor:
        similarity = feats @ self.feats.t()
        same = indices[:, None] == self.indices
        best, places = similarity.masked_fill_(same, -torch.inf).max(dim=1)
        alone = best[:, None] == -torch.inf
        return torch.where(alone, feats, self.feats[places])

    @torch.no_grad()
    def push(self, feats: torch.Tensor, indices: torch.Tensor) -> None:
        """Write the features of all processes over the oldest ones.

        They are in the order of the processes; of more than ``length`` the
        last remain.

        Args:
            feats (Tensor): Features of length 1, floating point (B, dim), B
                the same on all processes.
            indices (Tensor): Indices of their images, int64 (B,).

        Raises:
            ValueError: If a shape or a type is wrong.
        """
        self._check(feats, indices)
        feats = torch.cat(all_gather(feats.float().contiguous()))
        indices = torch.cat(all_gather(indices.contiguous()))
        count = len(feats)
        first = max(0, count - self.length)
        # No position comes twice: the order of writing would be undefined.
        places = torch.arange(first, count, device=feats.device)
        places.add_(self.pointer).remainder_(self.length)
        self.feats.index_copy_(0, places, feats[first:])
        self.indices.index_copy_(0, places, indices[first:])
        self.is_full.logical_or_(self.pointer + count >= self.length)
        self.pointer.add_(count).remainder_(self.length)

    def _check(self, feats: torch.Tensor, indices: torch.Tensor) -> None:
        if feats.dim() != 2 or feats.shape[1] != self.dim:
            raise ValueError(
                f'Features of shape {tuple(feats.shape)} for a '
                f'nearest-neighbor queue with dim={self.dim}: they must be '
                f'(B, {self.dim}).'
            )
        if indices.shape != feats.shape[:1] or indices.dtype != torch.int64:
            raise ValueError(
                f'Indices of shape {tuple(indices.shape)} and type '
                f'{indices.dtype} for {len(feats)} features: the '
                f'nearest-neighbor queue takes ({len(feats)},), torch.int64.'
            )

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        saved = state_dict.get(f'{prefix}feats')
        # Its place and its being full must not come without its rows.
        if saved is not None and saved.shape != self.feats.shape:
            error_msgs = args[-1]
            error_msgs.append(
                f'{prefix}feats is {tuple(saved.shape)} in the checkpoint, '
                f'and {tuple(self.feats.shape)} with length={self.length} and '
                f'dim={self.dim}. Such a nearest-neighbor queue is not '
                'loaded; this one keeps its rows.'
            )
            return
        super()._load_from_state_dict(state_dict, prefix, *args)
