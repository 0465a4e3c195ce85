"""How results are shown and what is written beside them, for all tools."""

import importlib
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from mm_rotssl.utils import write_file

from .functional import mean_and_std

PACKAGES = (
    *('mm_rotssl', 'mmengine', 'mmcv', 'mmpretrain'),
    *('torch', 'numpy', 'sklearn', 'matplotlib'),
)


def format_figure(
    value: float, spread: float | None = None, unit: str = '%'
) -> str:
    """Write a figure, and its spread, with the digits that tell something.

    Args:
        value (float): A measurement, or the mean of several.
        spread (float, optional): Their standard deviation. Defaults to None.
        unit (str): Of both. Percentages have one decimal, all others three
            significant digits, as counted from the larger of the two, or
            more where the integer part has more. Defaults to '%'.

    Returns:
        str: Without the unit. Spreads of percentages are equally wide, such
        that the signs of a right-aligned column are below each other.

    Examples:
        >>> format_figure(12.04, 2.83), format_figure(12.04)
        ('12.0 ±  2.8', '12.0')
        >>> format_figure(0.5432, 0.0123, ''), format_figure(5432.1, unit='')
        ('0.543 ± 0.012', '5432')
    """
    if unit == '%':
        style, width = '.1f', 4
    else:
        size, width = max(abs(value), abs(spread or 0)), 0
        # of the rounded size: 9.996 is 10.0
        exponent = int(f'{size:.2e}'.partition('e')[2])
        style = f'.{max(2 - exponent, 0)}f' if exponent > -4 else '.2e'
    # a negative number that is rounded to zero has no sign
    text = f'{value:{style}}'
    text = text.removeprefix('-') if not float(text) else text
    return text if spread is None else f'{text} ± {spread:{width}{style}}'


def format_spread(values: Sequence[float]) -> str:
    """Write mean and sample standard deviation of percentages.

    Args:
        values (Sequence[float]): Repeated measurements, at least one.

    Returns:
        str: See :func:`format_figure`; a single value has no spread.

    Examples:
        >>> format_spread([10.0, 14.0]), format_spread([10.0])
        ('12.0 ±  2.8', '10.0')
    """
    return format_figure(*mean_and_std(values))


def make_table(
    title: str, names: Sequence[str], figures: Sequence[str]
) -> Table:
    """Make an empty table as all commands print them.

    Args:
        title (str): Its headline.
        names (Sequence[str]): Headings of the columns that name a row.
        figures (Sequence[str]): Headings of the columns of numbers, which
            are aligned on the right.

    Returns:
        Table: With columns and no rows.
    """
    table = Table(
        title=title,
        title_justify='left',
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        # two spaces between columns: what is shown fits into 80
        padding=(0, 1, 0, 0),
    )
    for heading in names:
        table.add_column(heading)
    for heading in figures:
        table.add_column(heading, justify='right')
    return table


def write_summary(path: str | Path, **results: Any) -> dict[str, Any]:
    """Write results, and how they came about, as JSON.

    Args:
        path (str | Path): The file; its folder is made.
        **results (Any): What the caller knows: config, seed, figures, ...

    Returns:
        dict[str, Any]: What the file holds: the results, the command line of
        this process as ``command``, and the packages' ``versions``.
    """
    text = json.dumps(
        dict(
            **results,
            command=shlex.join(['python', *sys.argv]),
            versions={
                'python': platform.python_version(),
                **{
                    name: importlib.import_module(name).__version__
                    for name in PACKAGES
                },
            },
        ),
        indent=2,
    )
    write_file(path, (text + '\n').encode())
    return json.loads(text)
