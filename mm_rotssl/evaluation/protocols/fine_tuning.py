import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.ops import pool_features

from ..functional import accuracy, fine_tune


class _LastStage(nn.Module):
    """A backbone that gives the pooled vector of its last stage."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map images to vectors (N, C)."""
        return pool_features(self.backbone(inputs))[-1]


def fine_tuned_accuracy(
    model: BaseSelfSupervisor,
    reference: DataLoader,
    test: DataLoader,
    chosen: torch.Tensor,
    num_classes: int,
    seed: int,
    test_to_reference: torch.Tensor | None = None,
) -> float:
    """Train a copy of the whole backbone on a few labels, and measure it.

    Args:
        model (BaseSelfSupervisor): Any algorithm with a ``backbone``; not
            changed.
        reference (DataLoader): Labeled images to train on.
        test (DataLoader): Labeled images to classify.
        chosen (Tensor): Positions of the reference images that may be used,
            int64, see `Features.draw`.
        num_classes (int): Number of classes.
        seed (int): See `fine_tune`.
        test_to_reference (Tensor, optional): See `match_labels`. Defaults to
            None, both have the same labels.

    Returns:
        float: Accuracy, in percent.
    """
    batch = reference.collate_fn(
        [reference.dataset[i] for i in chosen.tolist()]
    )
    inputs, labels = _prepare(model, batch)
    tuned = fine_tune(
        _LastStage(model.backbone), inputs, labels, num_classes, seed
    )
    found = []
    for batch in test:
        inputs, labels = _prepare(model, batch)
        with torch.no_grad():
            found.append((tuned(inputs).argmax(1), labels))
    predicted, labels = map(torch.cat, zip(*found, strict=True))
    if test_to_reference is not None:
        labels = test_to_reference.to(labels.device)[labels]
    return accuracy(predicted, labels)


def _prepare(
    model: BaseSelfSupervisor, batch: dict
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalized images and labels, on the network's device."""
    data = model.data_preprocessor(batch, False)
    labels = [int(sample.gt_label) for sample in data['data_samples']]
    return data['inputs'], torch.tensor(labels, device=data['inputs'].device)
