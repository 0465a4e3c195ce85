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


def format_spread(values: Sequence[float]) -> str:
    """Write mean and sample standard deviation with one decimal each.

    Args:
        values (Sequence[float]): Repeated measurements, at least one.

    Returns:
        str: Such that the signs of a right-aligned column are below each
        other; a single value has no spread.

    Examples:
        >>> format_spread([10.0, 14.0]), format_spread([10.0])
        ('12.0 ±  2.8', '10.0')
    """
    mean, spread = mean_and_std(values)
    return f'{mean:.1f}' if spread is None else f'{mean:.1f} ± {spread:4.1f}'


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
