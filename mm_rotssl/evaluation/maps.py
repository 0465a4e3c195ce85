"""Features that keep where in an image they are from."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from mm_rotssl.ops import pool_to_values

from .feature_store import Extracted
from .subject import Subject


@dataclass(frozen=True)
class MapPool:
    """See `pool_to_values`.

    Args:
        values (int): About how many numbers of an image and stage.
    """

    values: int

    def __call__(self, feats: Any) -> tuple[torch.Tensor, ...]:
        """Pool what a backbone gives.

        Args:
            feats (Tensor | Sequence[Tensor]): A stage each.

        Returns:
            tuple[Tensor, ...]: (N, C * s * s) for each stage.
        """
        return pool_to_values(feats, self.values)


def extract_maps(
    subject: Subject, images: DataLoader, values: int
) -> Extracted:
    """Extract pooled maps, which stay on the disk.

    Args:
        subject (Subject): The network.
        images (DataLoader): Images in a fixed order.
        values (int): About how many numbers of an image and stage.

    Returns:
        Extracted: Of each stage (N, C * s * s), see `pool_to_values`; of the
        embedding the vector.
    """
    return subject.store.extract(
        subject.model, images, pool=MapPool(values), report=subject.report
    )
