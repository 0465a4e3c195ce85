from collections.abc import Sequence

import torch
from mmpretrain.structures import DataSample


def set_feats(
    samples: Sequence[DataSample], feats: Sequence[torch.Tensor]
) -> None:
    """Give samples the features of their images.

    Args:
        samples (Sequence[DataSample]): N of them; ``feats`` becomes a tuple
            with a vector (C,) for each stage.
        feats (Sequence[Tensor]): (N, C) for each stage, see
            :func:`pool_features`.
    """
    for i, sample in enumerate(samples):
        sample.set_field(tuple(feat[i] for feat in feats), 'feats')
