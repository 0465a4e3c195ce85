"""One feature vector per picture and stage, whatever the backbone gives."""

from collections.abc import Sequence

import torch
from mmpretrain.structures import DataSample

Features = torch.Tensor | Sequence[torch.Tensor]


def pool_features(feats: Features) -> tuple[torch.Tensor, ...]:
    """Reduce a backbone's output to a vector per picture and stage.

    Args:
        feats (Tensor | Sequence[Tensor]): Output of a backbone: one tensor
            or one a stage. Maps (N, C, H, W) and tokens (N, L, C) are
            averaged over their positions; vectors (N, C), such as a class
            token, stay as they are. A stage that is itself a sequence
            (patch map, class token) counts with its last member.

    Returns:
        tuple[Tensor, ...]: (N, C) for each stage, float32.

    Raises:
        ValueError: If a tensor has another number of dimensions.

    Examples:
        >>> import torch
        >>> maps = torch.ones(2, 8, 4, 4), torch.ones(2, 16)
        >>> [tuple(f.shape) for f in pool_features(maps)]
        [(2, 8), (2, 16)]
    """
    if isinstance(feats, torch.Tensor):
        feats = (feats,)
    pooled = []
    for feat in feats:
        if isinstance(feat, (tuple, list)):
            feat = feat[-1]
        if feat.dim() == 4:
            feat = feat.float().mean((2, 3))
        elif feat.dim() == 3:
            feat = feat.float().mean(1)
        elif feat.dim() != 2:
            raise ValueError(
                'A stage of the backbone gave a tensor of shape '
                f'{tuple(feat.shape)}; expected (N, C, H, W), (N, L, C) or '
                '(N, C).'
            )
        pooled.append(feat.float())
    return tuple(pooled)


def set_feats(
    samples: Sequence[DataSample], feats: Sequence[torch.Tensor]
) -> None:
    """Give samples the features of their pictures.

    Args:
        samples (Sequence[DataSample]): N of them; ``feats`` becomes a tuple
            with a vector (C,) for each stage.
        feats (Sequence[Tensor]): (N, C) for each stage, see
            :func:`pool_features`.
    """
    for i, sample in enumerate(samples):
        sample.set_field(tuple(feat[i] for feat in feats), 'feats')
