"""What evaluations start from: the features of a network, extracted once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch.utils.data import DataLoader

from mm_rotssl.ops import pool_features

from .functional import draw_labels
from .labels import REFERENCE, TEST, list_classes


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
            pixels, bicubically, before they enter the network. Defaults to
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
            # with antialias=True the cubic is that of Pillow and Matlab
            inputs = F.interpolate(
                inputs,
                (input_size, input_size),
                mode='bicubic',
                antialias=True,
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


def stage_names(backbone: Any, count: int) -> list[str]:
    """Number the stages as in the backbone, where it says which it gives.

    Args:
        backbone (Any): A module, perhaps with ``out_indices``.
        count (int): Number of its outputs.

    Returns:
        list[str]: A number for each output, from 1.
    """
    indices = getattr(backbone, 'out_indices', ())
    indices = (indices,) if isinstance(indices, int) else tuple(indices)
    if len(indices) != count or min(indices) < 0:
        indices = tuple(range(count))
    return [str(i + 1) for i in sorted(indices)]


def class_names(datasets: Sequence[Any], count: int) -> list[str]:
    """Name the classes as the first dataset that knows names does.

    Args:
        datasets (Sequence[Any]): Datasets or wrappers of such.
        count (int): Number of classes.

    Returns:
        list[str]: A name for each class; its number where there is none.
    """
    names: list[str] = []
    for dataset in datasets:
        names = names or list_classes(dataset)
    return [names[i] if i < len(names) else str(i) for i in range(count)]


@dataclass
class Features:
    """Features of a network: reference set and test images, by stage.

    Args:
        stages (list[str]): Names of the stages.
        classes (list[str]): Names of the classes, by label.
        reference (list[Tensor]): Of each stage the features of the labeled
            images to learn from, float32 (M, C).
        reference_labels (Tensor): Their classes, int64 (M,).
        test (list[Tensor]): Of each stage the features of the images to
            classify, float32 (N, C).
        test_labels (Tensor): Their classes, int64 (N,).
    """

    stages: list[str]
    classes: list[str]
    reference: list[torch.Tensor]
    reference_labels: torch.Tensor
    test: list[torch.Tensor]
    test_labels: torch.Tensor

    @classmethod
    def extract(
        cls,
        model: BaseSelfSupervisor,
        reference: DataLoader,
        test: DataLoader,
        test_to_reference: torch.Tensor | None = None,
        **settings: Any,
    ) -> 'Features':
        """Run both datasets through a network, see `extract_features`.

        Args:
            model (BaseSelfSupervisor): The algorithm with its weights.
            reference (DataLoader): Labeled images to learn from.
            test (DataLoader): Labeled images to classify; the same object
                goes through the network only once.
            test_to_reference (Tensor, optional): See `match_labels`, by
                which labels of the test images become those of the reference
                set. Defaults to None, they are the same.
            **settings (Any): ``pool`` and ``input_size``.

        Returns:
            Features: On the CPU.

        Raises:
            ValueError: If an image has no label.
        """
        found = []
        loaders = {REFERENCE: reference}
        if test is not reference:
            loaders[TEST] = test
        for key, loader in loaders.items():
            try:
                found.append(extract_features(model, loader, **settings))
            except ValueError as error:
                raise ValueError(f'{key}: {error}') from error
        (feats, labels), (test_feats, test_labels) = found[0], found[-1]
        if test_to_reference is not None:
            test_labels = test_to_reference[test_labels]
        count = int(torch.cat([labels, test_labels]).max()) + 1
        return cls(
            stage_names(model.backbone, len(feats)),
            class_names((reference.dataset, test.dataset), count),
            feats,
            labels,
            test_feats,
            test_labels,
        )

    def draw(self, shots: int, draws: int, seed: int) -> list[torch.Tensor]:
        """Choose reference images, the same for every network.

        Args:
            shots (int): Images of each class that occurs.
            draws (int): Number of independent draws.
            seed (int): Of all of them.

        Returns:
            list[Tensor]: Of each draw the positions in the reference set,
            int64, see `draw_labels`.

        Raises:
            ValueError: If a class has fewer images.
        """
        counts = self.reference_labels.bincount().tolist()
        for name, count in zip(self.classes, counts, strict=False):
            if 0 < count < shots:
                raise ValueError(
                    f'{shots} labels a class were asked for, but class '
                    f'"{name}" has only {count} images in {REFERENCE}. Ask '
                    'for fewer or add labeled images.'
                )
        return [
            draw_labels(self.reference_labels, shots, (seed, draw))
            for draw in range(draws)
        ]
