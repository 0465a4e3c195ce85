"""What the figures have in common: colors, line styles, fonts.

Colors are told apart with any color vision; where they carry a meaning, a
shape carries it too. The background is white, whatever the page's is.
"""

import textwrap
from collections.abc import Mapping
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
# the same of trained networks, where there may be more
TRAINED = tuple(
    dict(color=color, linestyle='-', marker=marker)
    for color, marker in zip(
        (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK),
        'o^DvPXs',
        strict=True,
    )
)
# inches; a page on a phone is about 60 pixels an inch then, a letter 9 high
WIDTH = 6.0

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
    'figure.facecolor': 'white',
    'axes.facecolor': 'white',
    'font.size': 10,
    'text.color': INK,
    'axes.labelcolor': INK,
    'axes.titlesize': 11,
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': '#E6E6E6',
    'legend.edgecolor': 'white',
    'legend.fontsize': 9,
    'figure.titlesize': 12,
    'figure.titleweight': 'bold',
}


def wrap(text: str, width: float, size: float, bold: bool = False) -> str:
    """Break a text into lines.

    Args:
        text (str): The text.
        width (float): Of the lines, in inches.
        size (float): Of the letters, in points.
        bold (bool): Whether they are. Defaults to False.

    Returns:
        str: The lines.
    """
    # a letter of the default font is so wide on average
    letter = size / 72 * (0.62 if bold else 0.54)
    return textwrap.fill(text, max(8, int(width / letter)))


def add_title(figure: Figure, title: str) -> None:
    """Write the headline at the left of the figure, in several lines."""
    size = STYLE['figure.titlesize']
    width = float(figure.get_figwidth()) - 0.2
    figure.suptitle(wrap(title, width, size, bold=True), x=0.01, ha='left')


def stage_label(stage: str | None) -> str:
    """Name a stage in a figure.

    Args:
        stage (str, optional): As in reports: a number, another name, or
            'embedding'; None is the whole network.

    Returns:
        str: Such as 'stage 1'.
    """
    if stage is None:
        return 'whole network'
    return f'stage {stage}' if stage.isdecimal() else stage


def network_styles(
    networks: Mapping[str, str | None],
) -> dict[str, dict[str, Any]]:
    """Choose colors, lines and markers of networks that are compared.

    Args:
        networks (Mapping[str, str | None]): Name of a network -> of a
            trained one that of its untrained one, if there is any; of an
            untrained one its own.

    Returns:
        dict[str, dict[str, Any]]: Name -> settings of a line. Untrained
        networks are gray and dashed, their markers hollow and of the shape
        of the first trained one that names them.
    """
    styles: dict[str, dict[str, Any]] = {}
    hollow: dict[str, str] = {}
    trained = [name for name, other in networks.items() if other != name]
    for i, name in enumerate(trained):
        styles[name] = TRAINED[i % len(TRAINED)]
        hollow.setdefault(networks[name] or '', styles[name]['marker'])
    return {
        name: styles.get(name)
        or dict(
            color=GRAY,
            linestyle='--',
            marker=hollow.get(name, 's'),
            markerfacecolor='white',
        )
        for name in networks
    }


def legend_columns(names: Mapping[str, Any] | list[str], width: float) -> int:
    """How many names of a legend fit side by side.

    Args:
        names (Mapping | list[str]): The names.
        width (float): Of the figure, in inches.

    Returns:
        int: One or more.
    """
    letter = STYLE['legend.fontsize'] / 72 * 0.54
    # a line and the gap before the next one
    longest = max(map(len, names)) * letter + 0.55
    return max(1, min(len(names), int((width - 0.2) / longest)))
