"""Figures of what was learned.

Each function returns a matplotlib figure: nothing is shown or saved here,
and pyplot's global state is not touched; ``figure.savefig(path)`` saves it.
"""

from .accuracy import plot_comparison, plot_stage_accuracy
from .curves import plot_training_curves, plot_transfer
from .embedding import plot_embedding
from .grids import (
    plot_image_table,
    plot_neighbors,
    plot_orientation,
    plot_patches,
)
from .images import shown_image, to_rgb
from .report_page import write_html, write_markdown
from .scalars import read_scalars
from .style import CLASS_COLORS, SERIES

__all__ = [
    'CLASS_COLORS',
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
    'to_rgb',
    'write_html',
    'write_markdown',
]
