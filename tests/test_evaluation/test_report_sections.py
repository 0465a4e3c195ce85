import copy
import io

import numpy as np
import pytest
from made_up_report import PROTOCOLS, made_up_report
from rich.console import Console

from mm_rotssl.evaluation.report_sections import (
    MISSING,
    report_sections,
    report_tables,
)


def section_of(report, key):
    (section,) = [s for s in report_sections(report) if s.key == key]
    return section


def cells_of(rows):
    """(names of a row..., heading) -> cell, for the columns of numbers."""
    found = {}
    for row in rows.rows:
        count = len(rows.names)
        names = tuple(cell.text for cell in row.cells[:count])
        cells = row.cells[count:]
        for heading, cell in zip(rows.numbers, cells, strict=True):
            place = (*names, heading)
            assert place not in found
            found[place] = cell
    return found


def heading_of(metric):
    unit = f' ({metric["unit"]})' if metric['unit'] else ''
    return (
        metric['title']
        + unit
        + {'higher': ' ↑', 'lower': ' ↓', None: ''}[metric['better']]
    )


@pytest.fixture(scope='module')
def report():
    return made_up_report()


@pytest.fixture(scope='module')
def tables(report):
    """Cells of the first table of each protocol."""
    sections = report_sections(report)[1:-1]
    return {
        name: cells_of(section.tables[0])
        for name, section in zip(PROTOCOLS, sections, strict=True)
    }


def test_cells_are_means_and_sample_deviations(report, tables):
    metrics = {p['name']: p['metrics'] for p in report['protocols']}
    for found in report['measurements']:
        metric = metrics[found['protocol']][found['metric']]
        cell = tables[found['protocol']][
            found['stage'], found['entry'], heading_of(metric)
        ]
        runs = np.array(found['runs'])
        values = runs.mean(axis=1) if len(runs) > 1 else runs[0]
        assert cell.value == pytest.approx(values.mean())
        mean, *spread = [float(part) for part in cell.text.split('±')]
        step = (
            0.1
            if metric['unit']
            else 10 ** (np.floor(np.log10(abs(cell.value))) - 2)
        )
        # of an integer no digit is left out
        step = min(step, 1)
        assert abs(mean - values.mean()) <= 0.51 * step
        assert bool(spread) == (len(values) > 1)
        if spread:
            assert abs(spread[0] - values.std(ddof=1)) <= 0.51 * step
    assert sum(map(len, tables.values())) > len(report['measurements'])


def test_the_best_stage_of_each_network_stands_out(report, tables):
    strong = {
        (name, *place)
        for name, cells in tables.items()
        for place, cell in cells.items()
        if cell.strong
    }
    expected = set()
    for protocol in report['protocols']:
        for key, metric in protocol['metrics'].items():
            for entry in report['entries']:
                means = {
                    m['stage']: np.mean(m['runs'])
                    for m in report['measurements']
                    if (m['protocol'], m['metric'], m['entry'])
                    == (protocol['name'], key, entry['name'])
                }
                pick = {'higher': max, 'lower': min}.get(metric['better'])
                if pick:
                    stage = pick(means, key=means.get)
                    expected.add(
                        (
                            protocol['name'],
                            stage,
                            entry['name'],
                            heading_of(metric),
                        )
                    )
    assert strong == expected
    # of a single stage there is no best
    report = copy.deepcopy(report)
    report['measurements'] = [
        m for m in report['measurements'] if m['stage'] == 'stem'
    ]
    (rows, *_) = section_of(report, 'protocol-knn').tables
    assert not any(cell.strong for cell in cells_of(rows).values())
    assert not any('Bold' in note for note in rows.notes)


def test_untrained_and_chance_are_beside_in_each_stage(report, tables):
    rows = section_of(report, 'protocol-knn').tables[0]
    names = [tuple(c.text for c in row.cells[:2]) for row in rows.rows]
    networks = [entry['name'] for entry in report['entries']]
    assert names == [
        (stage, name)
        for stage in report['entries'][0]['stages']
        for name in (*networks, 'chance')
    ]
    assert [row.muted for row in rows.rows] == [
        name in ('untrained', 'chance') for _, name in names
    ]
    assert [row.starts_group for row in rows.rows] == [
        i > 0 and name == networks[0] for i, (_, name) in enumerate(names)
    ]
    assert tables['knn']['stem', 'chance', 'top-1 (%) ↑'].text == '10.0'
    # one metric of two has no chance; none of the rank has
    assert not any(place[1] == 'chance' for place in tables['rank'])


def test_chance_may_depend_on_the_network(report):
    report = copy.deepcopy(report)
    for found in report['measurements']:
        if found['protocol'] == 'rotation' and found['stage'] == 'stem':
            found['chance'] = {'rotnet': 25.0, 'simclr': None}.get(
                found['entry'], 50.0
            )
    cells = cells_of(section_of(report, 'protocol-rotation').tables[0])
    assert cells['stem', 'chance', 'accuracy (%) ↑'].text == '25.0 to 50.0'
    assert cells['layer1', 'chance', 'accuracy (%) ↑'].text == '25.0'


def test_what_is_missing_is_a_dash():
    report = made_up_report(1, ('clusters',))
    nan = float('nan')
    gone = {
        # nothing measured, no number, nothing at all
        ('rotnet', 'stem', 'nmi'): [[], [], []],
        ('rotnet', 'layer1', 'nmi'): [[0.1], [nan], [0.2]],
        ('rotnet', 'layer2', 'nmi'): [[0.1, None], [0.2, 0.2], [0.3, 0.1]],
        ('rotnet', 'layer3', 'nmi'): None,
    }
    for found in [*report['measurements']]:
        place = (found['entry'], found['stage'], found['metric'])
        if place in gone:
            if gone[place] is None:
                report['measurements'].remove(found)
            else:
                found['runs'] = gone[place]
        if place[:2] == ('untrained', 'layer4'):
            report['measurements'].remove(found)
    cells = cells_of(section_of(report, 'protocol-clusters').tables[0])
    for entry, stage, _ in gone:
        cell = cells[stage, entry, 'NMI ↑']
        assert (cell.text, cell.value) == (MISSING, None)
        assert cells[stage, entry, 'matched accuracy (%) ↑'].value
    # what is left is not the best of several
    assert cells['layer4', 'rotnet', 'NMI ↑'].value
    assert not cells['layer4', 'rotnet', 'NMI ↑'].strong
    # a row of dashes would say nothing
    assert ('layer4', 'untrained', 'NMI ↑') not in cells


def test_a_run_that_is_missing_does_not_count():
    report = made_up_report(1, ('knn',))
    for found in report['measurements']:
        if found['entry'] == 'rotnet':
            found['runs'] = [[10.0, 20.0], [], [30.0, 60.0]]
    rows = section_of(report, 'protocol-knn').tables[0]
    cell = cells_of(rows)['stem', 'rotnet', 'top-1 (%) ↑']
    assert cell.text == f'30.0 ± {np.std([15, 45], ddof=1):.1f}'
    assert 'over 2 runs (means of their draws) of rotnet; ' in rows.notes[-1]


@pytest.mark.parametrize(
    ('runs', 'note'),
    [
        ([[1.0], [2.0]], 'over 2 runs.'),
        ([[1.0, 2.0, 3.0, 4.0]], 'over 4 draws.'),
        ([[1.0, 2.0], [3.0, 4.0]], 'over 2 runs (means of their draws).'),
        ([[1.0]], None),
    ],
)
def test_spreads_say_what_they_are_over(runs, note):
    report = made_up_report(1, ('knn',))
    for found in report['measurements']:
        found['runs'] = runs
    notes = section_of(report, 'protocol-knn').tables[0].notes
    found = [text for text in notes if '±' in text]
    assert found == (
        [f'± is the sample standard deviation {note}'] if note else []
    )


def test_figures_of_the_whole_network_come_last(report):
    report = made_up_report(1, ('clusters',), runs=1)
    report['measurements'].append(
        {
            'protocol': 'clusters',
            'entry': 'rotnet',
            'metric': 'accuracy',
            'stage': None,
            'runs': [[90.0]],
            'chance': None,
        }
    )
    # a stage that only this network has
    report['measurements'].append(
        {**report['measurements'][-1], 'stage': 'embedding'}
    )
    rows = section_of(report, 'protocol-clusters').tables[0].rows
    assert [row.cells[0].text for row in rows[-2:]] == [
        'embedding',
        'whole network',
    ]
    values = [row.cells[0].value for row in rows]
    assert values == sorted(values)


def test_differences_with_their_intervals(report):
    report = copy.deepcopy(report)
    for found in report['differences']:
        if (found['protocol'], found['entry']) == ('linear', 'rotnet'):
            interval = {'stem': (-1.04, 3.0), 'layer1': (-9.0, -2.0)}
            found['low'], found['high'] = interval.get(
                found['stage'], (0.2, 9.0)
            )
            found['value'] = -5.5 if found['stage'] == 'layer1' else 1.0
        if found['metric'] == '10':
            found['how'] = 'By another method.'
    # whatever their order
    report['differences'].reverse()
    first, *tables = section_of(report, 'protocol-linear').tables
    assert [t.notes[0] for t in tables] == [
        report['differences'][0]['how'],
        'By another method.',
    ]
    assert [list(t.numbers) for t in tables] == [
        ['1 label (%) ↑', '5 labels (%) ↑', 'all labels (%) ↑'],
        ['10 labels (%) ↑'],
    ]
    assert not first.detail
    assert all(t.detail for t in tables)
    cells = {**cells_of(tables[0]), **cells_of(tables[1])}
    assert len(cells) == 5 * 5 * 4
    for heading in ('1 label (%) ↑', '10 labels (%) ↑'):
        shown = [
            cells[stage, 'rotnet', 'untrained', heading]
            for stage in ('stem', 'layer1', 'layer2')
        ]
        assert [(c.text, c.value, c.strong) for c in shown] == [
            ('+1.0 [-1.0, 3.0]', 1.0, False),
            ('-5.5 [-9.0, -2.0]', -5.5, True),
            ('+1.0 [0.2, 9.0]', 1.0, True),
        ]
    stages = [row.cells[0].value for row in tables[0].rows]
    assert stages == sorted(stages)


def test_a_difference_of_what_was_measured_once(report):
    """It has no interval, and does not stand out."""
    report = copy.deepcopy(report)
    for found in report['differences']:
        if found['protocol'] == 'linear':
            found.update(value=7.0, low=None, high=None, how='Once.')
    _, table = section_of(report, 'protocol-linear').tables
    assert {
        (cell.text, cell.value, cell.strong)
        for cell in cells_of(table).values()
        if cell.value is not None
    } == {('+7.0', 7.0, False)}


def test_summary_names_the_best_stages(report):
    report = copy.deepcopy(report)
    for found in report['measurements']:
        if (found['entry'], found['stage']) == ('simclr', 'layer1'):
            lower = found['protocol'] == 'uniformity'
            found['runs'] = [[-50.0 if lower else 999.0]]
    report['remarks'] = ['A remark.']
    report['protocols'][-1]['skipped'] = 'too few images'
    summary = section_of(report, 'summary')
    assert summary.remarks == [
        'A remark.',
        'Retrieval, not measured: too few images',
    ]
    assert section_of(report, 'protocol-retrieval').remarks == [
        'Not measured: too few images'
    ]
    data, networks, best = summary.tables
    assert [[c.text for c in row.cells] for row in data.rows] == [
        ['images', 'photos', '12345'],
        ['labeled, to learn from', 'digits, train', '1397'],
        ['labeled, to test on', 'digits, test', '400'],
    ]
    assert [[c.text for c in networks.rows[i].cells] for i in (0, -1)] == [
        ['rotnet', 'trained', 'untrained', STAGES, '3'],
        ['untrained', 'untrained', '–', STAGES, '1'],
    ]
    cells = {
        (row.cells[0].text, row.cells[1].text): row.cells[2:]
        for row in best.rows
    }
    # one metric a protocol, and only of those that have a direction
    assert list(dict.fromkeys(measure for measure, _ in cells)) == [
        'k nearest neighbors: top-1 (%) ↑',
        'Linear probe: 1 label (%) ↑',
        'Clusters: matched accuracy (%) ↑',
        'Effective rank: RankMe ↑',
        'Alignment and uniformity: alignment ↓',
        'Rotation probe: accuracy (%) ↑',
        'Retrieval: mAP (%) ↑',
    ]
    assert {name for _, name in cells} == {
        entry['name'] for entry in report['entries'][:-1]
    }
    for measure, name in cells:
        if name == 'simclr':
            assert cells[measure, name][0].text == 'layer1'
    (stage, figure, untrained, difference) = cells[
        'k nearest neighbors: top-1 (%) ↑', 'rotnet'
    ]
    assert stage.text == 'layer4'
    full = cells_of(section_of(report, 'protocol-knn').tables[0])
    heading = 'top-1 (%) ↑'
    assert figure.text == full['layer4', 'rotnet', heading].text
    assert untrained.text == full['layer4', 'untrained', heading].text
    (expected,) = [
        d
        for d in report['differences']
        if (d['protocol'], d['stage'], d['entry'])
        == ('knn', 'layer4', 'rotnet')
    ]
    assert difference.value == expected['value']
    assert [c.text for c in cells['Effective rank: RankMe ↑', 'rotnet']][
        3
    ] == MISSING


STAGES = 'stem, layer1, layer2, layer3, layer4'


def test_the_end_tells_how_to_make_it_again(report):
    made, checkpoints, settings = section_of(report, 'made').tables
    assert [[c.text for c in row.cells] for row in made.rows] == [
        ['command', report['command']],
        ['created', '2026-05-01T12:00:00'],
        ['duration', '0:12:34'],
        ['device', 'cuda'],
        ['seed', '0'],
        ['python version', '3.11.7'],
        ['torch version', '2.9.1'],
    ]
    assert len(checkpoints.rows) == 3 + 4 + 1
    assert [c.text for c in checkpoints.rows[-1].cells] == [
        'untrained',
        'configs/rotnet/rotnet_resnet18_digits.py',
        MISSING,
        '0',
    ]
    assert [c.text for c in settings.rows[1].cells] == [
        'k nearest neighbors',
        'center',
        'true',
    ]
    about = section_of(report, 'protocol-linear').about
    assert list(about)[:2] == [
        'Linear probe',
        '1 label (%) ↑, higher is better',
    ]
    assert about['Linear probe'] == PROTOCOLS['linear'][1]


@pytest.mark.parametrize('width', [80, 200])
def test_terminal_shows_the_same_cells(report, width):
    shown = [
        rows
        for section in report_sections(report)
        for rows in section.tables
        if not rows.detail
    ]
    tables = report_tables(report)
    assert len(tables) == len(shown) == 3 + len(PROTOCOLS)
    for rows, table in zip(shown, tables, strict=True):
        console = Console(width=width, file=io.StringIO())
        console.print(table)
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= width
        assert '…' not in text
        words = text.split()
        for row in rows.rows:
            for cell in row.cells[len(rows.names) :]:
                # numbers are on one line
                assert ' '.join(cell.text.split()) in ' '.join(words)
        if width == 200:
            # what the rows of a group share is said once
            firsts = [row.cells[0].text for row in rows.rows]
            shared = [
                a
                for a, b in zip(firsts, [None, *firsts], strict=False)
                if a != b
            ]
            lines = text.splitlines()[3:]
            assert [
                first
                for line in lines
                if (first := line.split('  ')[0]) in firsts
            ] == shared
            for note in rows.notes:
                assert note.split()[0] in words


def test_names_are_no_markup_in_a_terminal():
    report = made_up_report(1, ('knn',))
    report['data']['images']['name'] = '[red]digits[/red]'
    console = Console(width=100, file=io.StringIO())
    console.print(report_tables(report)[0])
    assert '[red]digits[/red]' in console.file.getvalue()
