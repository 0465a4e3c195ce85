from .images import shown_image
from .plots import (
    SERIES,
    plot_comparison,
    plot_embedding,
    plot_image_table,
    plot_neighbors,
    plot_orientation,
    plot_patches,
    plot_stage_accuracy,
    plot_training_curves,
    plot_transfer,
)
from .scalars import read_scalars

__all__ = [
    'SERIES',
    'plot_comparison',
    'plot_embedding',
    'plot_image_table',
    'plot_neighbors',
    'plot_orientation',
    'plot_patches',
    'plot_stage_accuracy',
    'plot_training_curves',
    'plot_transfer',
    'read_scalars',
    'shown_image',
]
