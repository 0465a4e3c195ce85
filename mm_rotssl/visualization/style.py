"""What the figures have in common: colors, line styles, fonts.

Colors are told apart with any color vision; where they carry a meaning, a
shape carries it too.
"""

from typing import Any

from matplotlib.figure import Figure

# Okabe and Ito's palette
BLUE, ORANGE, VERMILION, GREEN = '#0072B2', '#E69F00', '#D55E00', '#009E73'
PURPLE, SKY = '#CC79A7', '#56B4E9'
GRAY, INK = '#7F7F7F', '#222222'
# Tol's "muted" palette, for many classes; the two lightest made darker
CLASS_COLORS = (
    '#332288',
    '#3FA0D8',
    '#44AA99',
    '#117733',
    '#999933',
    '#C99A1A',
    '#CC6677',
    '#882255',
    '#AA4499',
    '#666666',
)
CLASS_MARKERS = 'osD^v<>'
# color, line and marker of the networks that are compared
SERIES = (
    dict(color=GRAY, linestyle='--', marker='s'),
    dict(color=BLUE, linestyle='-', marker='o'),
    dict(color=VERMILION, linestyle=':', marker='^'),
    dict(color=GREEN, linestyle='-.', marker='D'),
)

# of a page: text and muted text on the background and on what is raised from
# it, links and marks, and lines that only divide
PAGE_COLORS = {
    'light': {
        'background': '#FFFFFF',
        'raised': '#F0F3F6',
        'text': INK,
        'muted': '#5C5C5C',
        'accent': BLUE,
        'line': '#C4C9CE',
    },
    'dark': {
        'background': '#16191D',
        'raised': '#242A31',
        'text': '#E8E8E8',
        'muted': '#A8ADB3',
        'accent': SKY,
        'line': '#444C55',
    },
}

STYLE: dict[Any, Any] = {
    'figure.dpi': 150,
    'font.size': 9,
    'text.color': INK,
    'axes.labelcolor': INK,
    'axes.titlesize': 10,
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': '#E6E6E6',
    'legend.edgecolor': 'white',
    'legend.fontsize': 8,
    'figure.titlesize': 12,
    'figure.titleweight': 'bold',
}


def add_title(figure: Figure, title: str) -> None:
    """Write the headline at the left of the figure."""
    figure.suptitle(title, x=0.01, ha='left')
