"""One feature vector per image and stage, whatever the backbone gives."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

Features = torch.Tensor | Sequence[torch.Tensor]


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Convert half precision, in which losses are not computed.

    Args:
        values (Tensor): Any float type.

    Returns:
        Tensor: float32, or float64 as it is.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def pool_features(feats: Features) -> tuple[torch.Tensor, ...]:
    """Reduce a backbone's output to a vector per image and stage.

    Args:
        feats (Tensor | Sequence[Tensor]): Output of a backbone: one tensor
            or one a stage. Maps (N, C, H, W) and tokens (N, L, C) are
            averaged over their positions; vectors (N, C), such as a class
            token, stay as they are. A stage that is itself a sequence
            (patch map, class token) counts with its last member.

    Returns:
        tuple[Tensor, ...]: (N, C) for each stage, float32.

    Raises:
        ValueError: If a tensor has neither two, three nor four dimensions.

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
            feat = at_least_float32(feat).mean((2, 3))
        elif feat.dim() == 3:
            feat = at_least_float32(feat).mean(1)
        elif feat.dim() != 2:
            raise ValueError(
                'A stage of the backbone gave a tensor of shape '
                f'{tuple(feat.shape)}; expected (N, C, H, W), (N, L, C) or '
                '(N, C).'
            )
        pooled.append(at_least_float32(feat))
    return tuple(pooled)


def pool_cells(
    feats: torch.Tensor | Sequence[torch.Tensor], levels: Sequence[int] = (2,)
) -> tuple[torch.Tensor, ...]:
    """Reduce each stage's map to the largest values of a few cells.

    Level ``l`` cuts a map into ``l * l`` cells that don't overlap: their
    sides are ``ceil(H / l)`` and ``ceil(W / l)``, and the last ones take the
    rest. A 17 × 17 map at level 2 is cut into 9 + 8 each way. (The cells
    of PyTorch's adaptive pooling would overlap there.)

    Args:
        feats (Tensor | Sequence[Tensor]): Output of a backbone, as
            `pool_features` takes it: one tensor or one a stage. Only maps
            (N, C, H, W) larger than 1 × 1 have cells; 1 × 1 maps, vectors
            (N, C) and tokens (N, L, C) become what `pool_features` makes of
            them: the vector itself, the tokens' mean.
        levels (Sequence[int]): Cells along a side; with several, a spatial
            pyramid, in which a level counts in proportion to the side of its
            cells: 1, 1/2 and 1/4 for (1, 2, 4), as in Exemplar-CNN's code.
            Defaults to (2,), the four quadrants.

    Returns:
        tuple[Tensor, ...]: For each stage (N, C * the sum of ``l * l``),
        float32, level by level, in each channel by channel and its cells row
        by row; (N, C) where there are no cells.

    Raises:
        ValueError: If a map can't be cut into as many cells, a level is not
            positive, or a tensor has another number of dimensions.

    Examples:
        >>> import torch
        >>> maps = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> pool_cells(maps)[0].tolist()
        [[4.0, 5.0, 7.0, 8.0]]
        >>> stages = torch.ones(2, 64, 17, 17), torch.ones(2, 512)
        >>> [tuple(f.shape) for f in pool_cells(stages, levels=(1, 2, 4))]
        [(2, 1344), (2, 512)]
    """
    if not levels or min(levels) < 1:
        raise ValueError(
            f'levels={levels} must name at least one level, and all must be '
            'positive.'
        )
    if isinstance(feats, torch.Tensor):
        feats = (feats,)
    pooled = []
    for feat in feats:
        if isinstance(feat, (tuple, list)):
            feat = feat[-1]
        if feat.dim() == 4 and feat.shape[2:] != (1, 1):
            coarsest = min(levels)
            cells = [
                _largest(feat.float(), level) * (coarsest / level)
                for level in levels
            ]
            pooled.append(torch.cat(cells, 1))
        else:
            pooled.extend(pool_features(feat))
    return tuple(pooled)


def cells_along(channels: int, values: int) -> int:
    """How many cells along a side bring a map to about so many numbers.

    With 9,000 values these are the sizes of RotNet's AlexNet (12, 7, 5, 6, 6
    for 64, 192, 384, 256, 256 channels) and of mmselfsup's ResNet-50 (12, 6,
    4, 3, 2 for 64, 256, 512, 1024, 2048).

    Args:
        channels (int): Of the map.
        values (int): About how many numbers.

    Returns:
        int: The nearest whole number to ``sqrt(values / channels)``, at
        least 1.

    Examples:
        >>> [cells_along(c, 9000) for c in (64, 192, 384, 256, 2048)]
        [12, 7, 5, 6, 2]
    """
    return max(1, round((values / channels) ** 0.5))


def pool_to_values(feats: Features, values: int) -> tuple[torch.Tensor, ...]:
    """Average each stage's map over cells, to about so many numbers.

    A map is averaged over s × s cells, s as by `cells_along` and at most the
    map's shorter side. Cells are those of PyTorch's adaptive pooling, which
    may overlap by a row.

    Args:
        feats (Tensor | Sequence[Tensor]): Output of a backbone, as
            `pool_features` takes it. Tokens and vectors have no cells; they
            become what `pool_features` makes of them.
        values (int): About how many numbers of an image and stage.

    Returns:
        tuple[Tensor, ...]: For each stage (N, C * s * s), float32, channel
        by channel, each row by row; (N, C) where there are no cells.

    Examples:
        >>> import torch
        >>> maps = torch.ones(2, 64, 55, 55), torch.ones(2, 256, 13, 13)
        >>> [tuple(f.shape) for f in pool_to_values(maps, 9000)]
        [(2, 9216), (2, 9216)]
    """
    if isinstance(feats, torch.Tensor):
        feats = (feats,)
    pooled = []
    for feat in feats:
        if isinstance(feat, (tuple, list)):
            feat = feat[-1]
        if feat.dim() == 4:
            side = min(cells_along(feat.size(1), values), *feat.shape[2:])
            cells = F.adaptive_avg_pool2d(feat.float(), side)
            pooled.append(cells.flatten(1))
        else:
            pooled.extend(pool_features(feat))
    return tuple(pooled)


def _largest(maps: torch.Tensor, level: int) -> torch.Tensor:
    """Max-pool maps (N, C, H, W) to (N, C * level * level)."""
    height, width = maps.shape[2:]
    # cells do not overlap: max_pool2d's stride defaults to the kernel
    sides = -(-height // level), -(-width // level)
    cells = F.max_pool2d(maps, sides, ceil_mode=True)
    if cells.shape[2:] != (level, level):
        raise ValueError(
            f'A stage gave maps of {height} × {width}; cells of {sides[0]} × '
            f'{sides[1]} cut them into {cells.size(2)} × {cells.size(3)} '
            f'parts, not into {level} × {level}. Use larger images, or '
            f'levels smaller than {level}.'
        )
    return cells.flatten(1)
