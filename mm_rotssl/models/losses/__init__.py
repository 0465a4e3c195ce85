from .nce_loss import NCELoss, nce_loss

__all__ = ['NCELoss', 'nce_loss']
