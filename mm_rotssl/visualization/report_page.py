"""The report of an evaluation as files that people read."""

import base64
import io
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from rich.cells import cell_len

from mm_rotssl.evaluation.report_sections import (
    Cell,
    Rows,
    Section,
    report_sections,
)
from mm_rotssl.utils import InputError, write_file

from .style import PAGE_COLORS

TYPES = {'.png': 'image/png', '.svg': 'image/svg+xml'}
# What Markdown, or GitHub's, would take for a sign, and only there: most paths
# and intervals stay as they are.
SIGNS = re.compile(
    r'[\\`*|~$]|<(?=[a-zA-Z/!?])|&(?=[#\w]+;)|\](?=[(:\[])'
    r'|(?<!\w)_|_(?!\w)'
)


def write_markdown(report: Mapping[str, Any], path: str | Path) -> None:
    """Write a report as Markdown that can be read as it is, too.

    Args:
        report (Mapping[str, Any]): What report.json holds.
        path (str | Path): The file. The paths of figures are taken to be
            relative to its folder.

    Raises:
        OSError: If it can't be written.
    """
    blocks = ['# Evaluation']
    for section in report_sections(report):
        blocks += _markdown(section)
    write_file(path, ('\n\n'.join(blocks) + '\n').encode())


def _markdown(section: Section) -> list[str]:
    blocks = [f'## {_escaped(section.title)}']
    if section.remarks:
        items = [_wrapped(remark, '- ', '  ') for remark in section.remarks]
        blocks.append('\n'.join(items))
    for rows in section.tables:
        if rows.title != section.title:
            blocks.append(f'### {_escaped(rows.title)}')
        blocks.append(_markdown_table(rows))
        if rows.notes:
            blocks.append(_wrapped(' '.join(rows.notes)))
    for title, text in section.about.items():
        blocks.append(f'**{_escaped(title)}**\n\n{_wrapped(text)}')
    for figure in section.figures:
        image = f'![{_escaped(figure["title"])}]({quote(figure["file"])})'
        text = _wrapped(f'{figure["title"]}. {figure["about"]}')
        blocks.append(f'{image}\n\n{text}')
    return blocks


def _markdown_table(rows: Rows) -> str:
    """A table whose columns are below each other, in the source too."""
    lines = [
        [_escaped(heading) for heading in (*rows.names, *rows.numbers)],
        *([_marked(cell) for cell in row.cells] for row in rows.rows),
    ]
    widths = [
        max(map(cell_len, column)) for column in zip(*lines, strict=True)
    ]
    rules = []
    for i, width in enumerate(widths):
        number = i >= len(rows.names)
        width = max(width, 3)
        rules.append('-' * (width - 1) + (':' if number else '-'))
        for line in lines:
            space = ' ' * (width - cell_len(line[i]))
            line[i] = space + line[i] if number else line[i] + space
    return '\n'.join(
        f'| {" | ".join(line)} |' for line in (lines[0], rules, *lines[1:])
    )


def _marked(cell: Cell) -> str:
    text = _escaped(cell.text)
    return f'**{text}**' if cell.strong else text


def _escaped(text: str) -> str:
    """Plain text as Markdown, on one line."""
    return SIGNS.sub(r'\\\g<0>', ' '.join(text.split()))


def _wrapped(text: str, first: str = '', others: str = '') -> str:
    """A paragraph of plain text, in lines of a terminal."""
    lines = textwrap.wrap(
        _escaped(text),
        79 - len(others),
        break_long_words=False,
        break_on_hyphens=False,
    )
    # none begins a list, a heading or a rule
    lines = [re.sub(r'^(\d*)([-+#=>.)])', r'\1\\\2', line) for line in lines]
    return first + f'\n{others}'.join(lines)


def write_html(
    report: Mapping[str, Any], path: str | Path, figures_folder: str | Path
) -> None:
    """Write a report as one HTML file that needs no other.

    Args:
        report (Mapping[str, Any]): What report.json holds. It is embedded
            as the element ``#report``, with null for what is no number.
        path (str | Path): The file.
        figures_folder (str | Path): What the paths of figures are relative
            to; PNG and SVG.

    Raises:
        InputError: If there is no such figure, or it is of another kind.
        OSError: If the file can't be written.
    """
    environment = Environment(
        autoescape=lambda name: name is not None and name.endswith('.html'),
        keep_trailing_newline=True,
        loader=PackageLoader('mm_rotssl.visualization'),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    # in its own order
    environment.policies['json.dumps_kwargs'] = {'allow_nan': False}
    page = environment.get_template('report.html').render(
        colors=PAGE_COLORS,
        images={
            figure['file']: _inlined(Path(figures_folder), figure['file'])
            for figure in report['figures']
        },
        report=_strict(report),
        sections=report_sections(report),
    )
    write_file(path, page.encode())


def _inlined(folder: Path, file: str) -> dict[str, Any]:
    """The address that holds an image itself, and its width if known."""
    path = folder / file
    if path.suffix not in TYPES:
        raise InputError(
            f'"{path}" can\'t be put into the report: figures are '
            f'{" or ".join(TYPES)}.'
        )
    if not path.is_file():
        raise InputError(
            f'There is no figure "{path}", which the report names.'
        )
    data = path.read_bytes()
    width = None
    if path.suffix == '.png':
        with Image.open(io.BytesIO(data)) as image:
            # as large as it was drawn, however many pixels it has
            dots = image.info.get('dpi', (96, 96))[0]
            width = round(image.width * 96 / dots)
    content = base64.b64encode(data).decode()
    return {
        'address': f'data:{TYPES[path.suffix]};base64,{content}',
        'width': width,
    }


def _strict(value: Any) -> Any:
    """What JSON can say: null for a float that is no number."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
