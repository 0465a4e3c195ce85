from .pictures import shown_picture
from .plots import (
    SERIES,
    plot_block_accuracy,
    plot_comparison,
    plot_embedding,
    plot_neighbors,
    plot_orientation,
    plot_patches,
    plot_picture_table,
    plot_training_curves,
    plot_transfer,
)
from .scalars import read_scalars

__all__ = [
    'SERIES',
    'plot_block_accuracy',
    'plot_comparison',
    'plot_embedding',
    'plot_neighbors',
    'plot_orientation',
    'plot_patches',
    'plot_picture_table',
    'plot_training_curves',
    'plot_transfer',
    'read_scalars',
    'shown_picture',
]
