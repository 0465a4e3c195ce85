from .nce_loss import NCELoss, nce_loss
from .sampled_softmax_loss import sampled_softmax_loss
from .scan_loss import scan_loss
from .swav_loss import SwAVLoss
from .uniform_prior_cross_entropy import (
    UniformPriorCrossEntropy,
    uniform_prior_cross_entropy,
)

__all__ = [
    'NCELoss',
    'SwAVLoss',
    'UniformPriorCrossEntropy',
    'nce_loss',
    'sampled_softmax_loss',
    'scan_loss',
    'uniform_prior_cross_entropy',
]
