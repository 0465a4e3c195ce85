import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch.utils.data import DataLoader

from ..metrics import RotationAccuracy


@torch.no_grad()
def rotation_accuracy(
    model: BaseSelfSupervisor, test: DataLoader
) -> float | None:
    """Measure how often an algorithm tells the rotation of an image.

    Args:
        model (BaseSelfSupervisor): The algorithm, in eval mode.
        test (DataLoader): Images that were not trained on.

    Returns:
        float | None: In percent, see :class:`RotationAccuracy`; None where
        the algorithm predicts no rotations.
    """
    metric = RotationAccuracy()
    for batch in test if hasattr(model, 'predict') else ():
        samples = [sample.to_dict() for sample in model.val_step(batch)]
        if 'rotation_scores' not in samples[0]:
            return None
        metric.process(batch, samples)
    if not metric.results:
        return None
    return metric.evaluate(len(metric.results))['rotation/accuracy']
