from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch.utils.data import DataLoader

from mm_rotssl.ops import pool_features


@torch.no_grad()
def extract_features(
    model: BaseSelfSupervisor,
    dataloader: DataLoader,
    pool: Callable[..., tuple[torch.Tensor, ...]] = pool_features,
    input_size: int | None = None,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Run a labeled dataset through a network.

    The model is left in eval mode.

    Args:
        model (BaseSelfSupervisor): Any self-supervised algorithm that gives
            its backbone's outputs for ``mode='tensor'``.
        dataloader (DataLoader): Images with labels, in a fixed order.
        pool (Callable): Makes a vector an image of each of the backbone's
            outputs. Defaults to :func:`pool_features`, their mean.
        input_size (int, optional): Scale the images to this side in
            pixels, bilinearly, before they enter the network. Defaults to
            None.

    Returns:
        tuple[list[Tensor], Tensor]: For each of the backbone's outputs the
        pooled features (N, C), float32; and the labels, int64 (N,); both on
        the CPU.

    Raises:
        ValueError: If an image has no label.
    """
    model.eval()
    batches = []
    labels: list[int] = []
    for data_batch in dataloader:
        data = model.data_preprocessor(data_batch, False)
        inputs = data['inputs']
        if input_size is not None:
            inputs = F.interpolate(
                inputs, (input_size, input_size), mode='bilinear'
            )
        feats = pool(model(inputs, mode='tensor'))
        batches.append([feat.cpu() for feat in feats])
        for sample in data['data_samples']:
            if 'gt_label' not in sample:
                raise ValueError(
                    f'Image {len(labels)} of '
                    f'{type(dataloader.dataset).__name__} has no label. Use '
                    'a labeled dataset (e.g. with_label=True of '
                    'mm_rotssl.ImageFolder).'
                )
            labels.append(int(sample.gt_label))
    return [
        torch.cat(stage) for stage in zip(*batches, strict=True)
    ], torch.tensor(labels)
