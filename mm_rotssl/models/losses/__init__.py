from .nce_loss import NCELoss, nce_loss
from .sampled_softmax_loss import sampled_softmax_loss

__all__ = ['NCELoss', 'nce_loss', 'sampled_softmax_loss']
