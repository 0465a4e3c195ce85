"""What a report says, for whatever shows it.

The terminal, Markdown and HTML show the same sections with the same rows, so
that they can't disagree: only here figures are summarized, chosen and
rounded.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from .functional import mean_and_std
from .report import format_figure, make_table

MISSING = '–'
ARROWS = {'higher': ' ↑', 'lower': ' ↓', None: ''}


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text (str): As shown.
        value (float, optional): What its column is sorted by. Defaults to
            None: by the text in a column without values, else last.
        strong (bool): Whether it stands out. Defaults to False.
    """

    text: str
    value: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        cells (Sequence[Cell]): One a column.
        muted (bool): Whether it is there to compare with. Defaults to False.
        starts_group (bool): Whether it is set apart from the row above.
            Defaults to False.
    """

    cells: Sequence[Cell]
    muted: bool = False
    starts_group: bool = False


@dataclass(frozen=True)
class Rows:
    """A table.

    Args:
        title (str): Its headline.
        names (Sequence[str]): Headings of the columns that name a row.
        numbers (Sequence[str]): Headings of the columns of numbers.
        rows (Sequence[Row]): At least one.
        notes (Sequence[str]): Sentences on how to read it. Defaults to none.
        detail (bool): Whether a terminal leaves it out. Defaults to False.
    """

    title: str
    names: Sequence[str]
    numbers: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    detail: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        key (str): Names it among the sections.
        title (str): Its headline.
        remarks (Sequence[str]): What it begins with. Defaults to none.
        tables (Sequence[Rows]): Defaults to none.
        about (Mapping[str, str]): Title -> what has to be known. Defaults to
            nothing.
        about_title (str): Headline of all of it. Defaults to 'What is
            measured, and how'.
        figures (Sequence[Mapping[str, Any]]): Those of the report that belong
            here. Defaults to none.
    """

    key: str
    title: str
    remarks: Sequence[str] = ()
    tables: Sequence[Rows] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    about_title: str = 'What is measured, and how'
    figures: Sequence[Mapping[str, Any]] = ()


def report_sections(report: Mapping[str, Any]) -> list[Section]:
    """Put a report into words and rows.

    Args:
        report (Mapping[str, Any]): What report.json holds.

    Returns:
        list[Section]: A summary, each protocol, and how the report was made.
    """
    known = _Report(report)
    return [
        _summary(known),
        *(_protocol(known, protocol) for protocol in report['protocols']),
        _made(report),
    ]


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """Put a report into tables for the terminal.

    Args:
        report (Mapping[str, Any]): What report.json holds.

    Returns:
        list[Table]: Those of the summary and of each protocol, but
        differences of other than the best stages.
    """
    return [
        _rich_table(rows)
        for section in report_sections(report)
        for rows in section.tables
        if not rows.detail
    ]


def _rich_table(rows: Rows) -> Table:
    table = make_table(rows.title, rows.names, rows.numbers)
    if rows.notes:
        table.caption = Text(' '.join(rows.notes), 'dim')
        table.caption_justify = 'left'
    for column in table.columns:
        # in full, on several lines if need be
        column.overflow = 'fold'
    cells = zip(*(row.cells for row in rows.rows), strict=True)
    widths = [max(cell_len(cell.text) for cell in column) for column in cells]
    if sum(widths[len(rows.names) :]) < 55:
        # 80 columns have room for the names beside: only those are folded
        for column, width in zip(table.columns, widths, strict=True):
            if column.justify == 'right':
                column.width = max(
                    width, *map(cell_len, str(column.header).split())
                )
    above = None
    for row in rows.rows:
        if row.starts_group:
            table.add_section()
        first, *others = row.cells
        # what the rows of a group share is said once
        table.add_row(
            Text('' if first.text == above else first.text),
            *(Text(c.text, 'bold' if c.strong else '') for c in others),
            style='dim' if row.muted else None,
        )
        above = first.text
    return table


@dataclass(frozen=True)
class _Mean:
    """What the runs and draws of a measurement come to."""

    value: float
    spread: float | None
    over: str

    @classmethod
    def of(cls, runs: Sequence[Sequence[float | None]]) -> '_Mean | None':
        """Summarize; None if there is nothing, or what is no number."""
        runs = [run for run in runs if run]
        numbers = [
            [v for v in run if v is not None and math.isfinite(v)]
            for run in runs
        ]
        if not runs or [*map(len, numbers)] != [*map(len, runs)]:
            return None
        if len(runs) == 1:
            return cls(*mean_and_std(numbers[0]), f'{len(numbers[0])} draws')
        means = [mean_and_std(run)[0] for run in numbers]
        several = ' (means of their draws)' * (max(map(len, numbers)) > 1)
        return cls(*mean_and_std(means), f'{len(runs)} runs{several}')


class _Report:
    """A report, its measurements by key."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.report = report
        self.measured = {
            (m['protocol'], m['metric'], m['stage'], m['entry']): m
            for m in report['measurements']
        }
        stages = [stage for e in report['entries'] for stage in e['stages']]
        stages += [stage for _, _, stage, _ in self.measured if stage]
        # None: of the whole network
        self.stages: list[str | None] = [*dict.fromkeys(stages), None]

    def means(
        self, protocol: str, metric: str, entry: str | None
    ) -> dict[str | None, _Mean]:
        """Stage -> figure of a network, where there is one."""
        means = {}
        for stage in self.stages:
            found = self.measured.get((protocol, metric, stage, entry))
            if found and (mean := _Mean.of(found['runs'])):
                means[stage] = mean
        return means

    def chances(
        self, protocol: str, metric: str, stage: str | None
    ) -> list[float]:
        """What guessing gives, which may depend on the network."""
        return [
            found['chance']
            for place, found in self.measured.items()
            if place[:3] == (protocol, metric, stage)
            and found['chance'] is not None
        ]

    def stage_cell(self, stage: str | None) -> Cell:
        # sorted as in the network
        return Cell(stage or 'whole network', self.stages.index(stage))


def _summary(known: _Report) -> Section:
    report = known.report
    roles = {
        'images': 'images',
        'reference': 'labeled, to learn from',
        'test': 'labeled, to test on',
    }
    data = [
        Row([Cell(title), Cell(found['name']), _count(found['count'])])
        for role, title in roles.items()
        if (found := report['data'][role])
    ]
    entries = [
        Row(
            [
                Cell(entry['name']),
                Cell(entry['kind']),
                Cell(_baseline(entry) or MISSING),
                Cell(', '.join(entry['stages']) or MISSING),
                _count(len(entry['runs'])),
            ],
            muted=entry['kind'] == 'untrained',
        )
        for entry in report['entries']
    ]
    tables = [
        Rows('Data', ['role', 'dataset'], ['images'], data),
        Rows(
            'Networks',
            ['network', 'kind', 'compared with', 'stages'],
            ['runs'],
            entries,
        ),
    ]
    if best := _best_rows(known):
        notes = [
            'The first measure of each protocol that has a direction (↑ '
            'higher is better, ↓ lower); its section has all.',
            'The stage was chosen by the figure shown, which flatters it a '
            'little; "untrained" is the same stage.',
            *['Bold: the interval in brackets leaves out zero.']
            * bool(report['differences']),
            '± is the sample standard deviation: over runs where a network '
            'has several, else over draws.',
        ]
        tables.append(
            Rows(
                'Best stage of each network',
                ['measure', 'network', 'best stage'],
                ['figure', 'untrained', 'difference'],
                _grouped(best),
                notes,
            )
        )
    skipped = [
        f'{protocol["title"]}, not measured: {protocol["skipped"]}'
        for protocol in report['protocols']
        if protocol['skipped']
    ]
    return Section(
        'summary',
        'Summary',
        [*report['remarks'], *skipped],
        tables,
        figures=[f for f in report['figures'] if f['protocol'] is None],
    )


def _best_rows(known: _Report) -> list[Row]:
    """Of each protocol the first metric with a direction, for each network."""
    differences = {
        tuple(
            found[key]
            for key in ('protocol', 'metric', 'stage', 'entry', 'baseline')
        ): found
        for found in known.report['differences']
    }
    rows = []
    for protocol in known.report['protocols']:
        metrics = protocol['metrics'].items()
        for key, metric in [m for m in metrics if m[1]['better']][:1]:
            for entry in known.report['entries']:
                means = known.means(protocol['name'], key, entry['name'])
                if entry['kind'] == 'untrained' or not means:
                    continue
                baseline = _baseline(entry)
                stage = _best(means, metric)
                place = (protocol['name'], key, stage, entry['name'])
                untrained = known.means(protocol['name'], key, baseline)
                cells = [
                    Cell(f'{protocol["title"]}: {_heading(metric)}'),
                    Cell(entry['name']),
                    known.stage_cell(stage),
                    _mean(means[stage], metric['unit']),
                    _mean(untrained.get(stage), metric['unit']),
                    _difference(
                        differences.get((*place, baseline)), metric['unit']
                    ),
                ]
                rows.append(Row(cells))
    return rows


def _protocol(known: _Report, protocol: Mapping[str, Any]) -> Section:
    name, metrics = protocol['name'], protocol['metrics']
    tables = []
    if rows := _measured_rows(known, protocol):
        chosen = any(cell.strong for row in rows for cell in row.cells)
        tables.append(
            Rows(
                protocol['title'],
                ['stage', 'network'],
                [_heading(metric) for metric in metrics.values()],
                _grouped(rows),
                [
                    *['Bold: the best stage of a network.'] * chosen,
                    *_spread_note(known, protocol),
                ],
            )
        )
    about = {protocol['title']: protocol['about']}
    for metric in metrics.values():
        better = f', {metric["better"]} is better' if metric['better'] else ''
        about[f'{_heading(metric)}{better}'] = metric['about']
    skipped = protocol['skipped']
    return Section(
        f'protocol-{name}',
        protocol['title'],
        [f'Not measured: {skipped}'] if skipped else [],
        [*tables, *_difference_tables(known, protocol)],
        about,
        figures=[f for f in known.report['figures'] if f['protocol'] == name],
    )


def _measured_rows(known: _Report, protocol: Mapping[str, Any]) -> list[Row]:
    """All figures of a protocol; in each stage all networks, then chance."""
    name, metrics = protocol['name'], protocol['metrics']
    entries = known.report['entries']
    means = {
        (key, entry['name']): known.means(name, key, entry['name'])
        for key in metrics
        for entry in entries
    }
    best = {
        (place, _best(found, metrics[place[0]]))
        for place, found in means.items()
        if len(found) > 1 and metrics[place[0]]['better']
    }
    rows = []
    for stage in known.stages:
        for entry in entries:
            cells = []
            for key, metric in metrics.items():
                place = (key, entry['name'])
                mean = means[place].get(stage)
                strong = (place, stage) in best
                cells.append(_mean(mean, metric['unit'], strong))
            if any(cell.value is not None for cell in cells):
                names = [known.stage_cell(stage), Cell(entry['name'])]
                untrained = entry['kind'] == 'untrained'
                rows.append(Row([*names, *cells], muted=untrained))
        chances = [
            _chance(known.chances(name, key, stage), metric['unit'])
            for key, metric in metrics.items()
        ]
        if any(cell.value is not None for cell in chances):
            names = [known.stage_cell(stage), Cell('chance')]
            rows.append(Row([*names, *chances], muted=True))
    return rows


def _difference_tables(
    known: _Report, protocol: Mapping[str, Any]
) -> list[Rows]:
    """Differences, one table for each way that they were made."""
    metrics = protocol['metrics']
    differences = [
        found
        for found in known.report['differences']
        if found['protocol'] == protocol['name']
    ]
    tables = []
    for how in dict.fromkeys(found['how'] for found in differences):
        by_place: dict[tuple[str | None, str, str], dict[str, Any]] = {}
        for found in differences:
            if found['how'] == how:
                place = (found['stage'], found['entry'], found['baseline'])
                by_place.setdefault(place, {})[found['metric']] = found
        keys = [
            key
            for key in metrics
            if any(key in found for found in by_place.values())
        ]
        rows = [
            Row(
                [
                    known.stage_cell(stage),
                    Cell(entry),
                    Cell(baseline),
                    *(
                        _difference(found.get(key), metrics[key]['unit'])
                        for key in keys
                    ),
                ]
            )
            for (stage, entry, baseline), found in sorted(
                by_place.items(),
                key=lambda item: known.stages.index(item[0][0]),
            )
        ]
        tables.append(
            Rows(
                f'{protocol["title"]}: differences',
                ['stage', 'network', 'compared with'],
                [_heading(metrics[key]) for key in keys],
                _grouped(rows),
                [how, 'Bold: the interval in brackets leaves out zero.'],
                detail=True,
            )
        )
    return tables


def _spread_note(known: _Report, protocol: Mapping[str, Any]) -> list[str]:
    """Say what the spreads are over, and for which networks, if any."""
    over: dict[str, dict[str, None]] = {}
    for entry in known.report['entries']:
        for key in protocol['metrics']:
            means = known.means(protocol['name'], key, entry['name'])
            for mean in means.values():
                if mean.spread is not None:
                    over.setdefault(mean.over, {})[entry['name']] = None
    if not over:
        return []
    of = [f'{what} of {", ".join(names)}' for what, names in over.items()]
    return [
        f'± is the sample standard deviation over '
        f'{"; over ".join(of if len(of) > 1 else over)}.'
    ]


def _made(report: Mapping[str, Any]) -> Section:
    """How to make it again."""
    made = {
        'command': report['command'],
        'created': report['created'],
        'duration': str(timedelta(seconds=round(report['seconds']))),
        'device': report['device'],
        'seed': report['seed'],
        **{f'{k} version': v for k, v in report['versions'].items()},
    }
    runs = [
        [entry['name'], run['config'], run['checkpoint'], run['seed']]
        for entry in report['entries']
        for run in entry['runs']
    ]
    settings = [
        [protocol['title'], key, value]
        for protocol in report['protocols']
        for key, value in protocol['settings'].items()
    ]
    tables = [
        Rows(
            title,
            names,
            [],
            _grouped([Row([*map(_text, values)]) for values in rows]),
            detail=True,
        )
        for title, names, rows in (
            (
                'This report',
                ['what', 'value'],
                [[*item] for item in made.items()],
            ),
            ('Checkpoints', ['network', 'config', 'checkpoint', 'seed'], runs),
            ('Settings', ['protocol', 'setting', 'value'], settings),
        )
        if rows
    ]
    classes = report['data']['classes']
    return Section(
        'made',
        'How it was made',
        tables=tables,
        about={f'{len(classes)} classes': ', '.join(classes)}
        if classes
        else {},
        about_title='Classes',
    )


def _count(number: int) -> Cell:
    return Cell(str(number), number)


def _baseline(entry: Mapping[str, Any]) -> str | None:
    """Name of the untrained network that an entry is compared with."""
    name = entry['untrained']
    return None if name == entry['name'] else name


def _heading(metric: Mapping[str, Any]) -> str:
    unit = f' ({metric["unit"]})' if metric['unit'] else ''
    return f'{metric["title"]}{unit}{ARROWS[metric["better"]]}'


def _best(
    means: Mapping[str | None, _Mean], metric: Mapping[str, Any]
) -> str | None:
    choose = max if metric['better'] == 'higher' else min
    return choose(means, key=lambda stage: means[stage].value)


def _grouped(rows: Sequence[Row]) -> list[Row]:
    """Set rows apart whose first cells differ, if others share theirs."""
    firsts = [row.cells[0].text for row in rows]
    if len(set(firsts)) == len(firsts):
        return [*rows]
    return [
        replace(row, starts_group=above is not None and above != first)
        for row, first, above in zip(
            rows, firsts, [None, *firsts[:-1]], strict=True
        )
    ]


def _mean(mean: _Mean | None, unit: str, strong: bool = False) -> Cell:
    if mean is None:
        return Cell(MISSING)
    text = format_figure(mean.value, mean.spread, unit)
    return Cell(text, mean.value, strong)


def _chance(chances: Sequence[float], unit: str) -> Cell:
    if not chances:
        return Cell(MISSING)
    ends = sorted({min(chances), max(chances)})
    text = ' to '.join(format_figure(end, unit=unit) for end in ends)
    return Cell(text, ends[0])


def _difference(found: Mapping[str, Any] | None, unit: str) -> Cell:
    """A difference, and the interval around it."""
    if found is None:
        return Cell(MISSING)
    value, low, high = found['value'], found['low'], found['high']
    text = f'{"+" * (value > 0)}{format_figure(value, unit=unit)}'
    if low is None or high is None:
        # nothing was repeated
        return Cell(text, value)
    ends = ', '.join(format_figure(end, unit=unit) for end in (low, high))
    return Cell(f'{text} [{ends}]', value, low > 0 or high < 0)


def _text(value: Any) -> Cell:
    """A setting as in JSON, but for plain text."""
    if value is None:
        return Cell(MISSING)
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    return Cell(value)
