from .pictures import shown_picture
from .plots import (
    plot_block_accuracy,
    plot_embedding,
    plot_neighbors,
    plot_orientation,
    plot_patches,
    plot_training_curves,
)
from .scalars import read_scalars

__all__ = [
    'plot_block_accuracy',
    'plot_embedding',
    'plot_neighbors',
    'plot_orientation',
    'plot_patches',
    'plot_training_curves',
    'read_scalars',
    'shown_picture',
]
