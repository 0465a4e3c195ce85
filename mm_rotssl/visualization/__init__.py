"""Figures of what was learned.

Each function returns a matplotlib figure: nothing is shown or saved here,
and pyplot's global state is not touched; ``figure.savefig(path)`` saves it.
"""

from .comparison import plot_comparison
from .confusion import plot_confusion
from .curves import plot_training_curves, plot_transfer
from .embedding import plot_embedding
from .grids import (
    contact_sheet,
    plot_attention,
    plot_image_groups,
    plot_image_table,
    plot_neighbors,
    plot_orientation,
    plot_pairs,
    plot_patches,
)
from .images import shown_image, shown_settings, to_rgb
from .metrics import MetricPanel, plot_metrics, summarize_runs
from .report_page import write_html, write_markdown
from .scalars import read_scalars
from .style import CLASS_COLORS, SERIES, network_styles, stage_label

__all__ = [
    'CLASS_COLORS',
    'SERIES',
    'MetricPanel',
    'contact_sheet',
    'network_styles',
    'plot_attention',
    'plot_comparison',
    'plot_confusion',
    'plot_embedding',
    'plot_image_groups',
    'plot_image_table',
    'plot_metrics',
    'plot_neighbors',
    'plot_orientation',
    'plot_pairs',
    'plot_patches',
    'plot_training_curves',
    'plot_transfer',
    'read_scalars',
    'shown_image',
    'shown_settings',
    'stage_label',
    'summarize_runs',
    'to_rgb',
    'write_html',
    'write_markdown',
]
