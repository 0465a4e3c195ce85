"""Rank correlations of the metrics of a report, computed by hand."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / 'benchmarks/rank_correlations.py'))


def protocol(name, labeled, **better):
    metrics = {key: dict(better=value) for key, value in better.items()}
    return dict(name=name, labeled=labeled, metrics=metrics)


def measured(protocol, metric, entry, stages):
    return [
        dict(
            protocol=protocol,
            metric=metric,
            stage=stage,
            entry=entry,
            runs=[[value - 0.1, value + 0.1] for value in runs],
        )
        for stage, runs in stages.items()
    ]


REPORT = dict(
    entries=[
        dict(name='one', stages=['1', '2', '3', 'embedding']),
        dict(name='two', stages=['1', '2', '3']),
        dict(name='three', stages=['1']),
    ],
    protocols=[
        protocol('free', False, up='higher', down='lower'),
        protocol('own-predictions', False, pretext='higher'),
        protocol('knn', True, k='higher'),
        protocol('all', True, x='higher'),
    ],
    # a value a run
    measurements=[
        *measured(
            *('knn', 'k', 'one'),
            {'1': (10, 10), '2': (20, 20), '3': (30, 30), 'embedding': (0, 0)},
        ),
        *measured(
            *('knn', 'k', 'two'), {'1': (30, 30), '2': (20, 20), '3': (5, 40)}
        ),
        *measured('knn', 'k', 'three', {'1': (25, 25)}),
        *measured(
            *('free', 'up', 'one'),
            # the second run exchanges two of three pairs
            {'1': (1, 2), '2': (2, 3), '3': (3, 1), 'embedding': (9, 9)},
        ),
        *measured(
            *('free', 'down', 'one'), {'1': (3, 3), '2': (2, 2), '3': (1, 1)}
        ),
        *measured(
            *('free', 'up', 'two'), {'1': (7, 7), '2': (7, 7), '3': (7, 7)}
        ),
        *measured('free', 'up', 'three', {'1': (6, 6)}),
        *measured('own-predictions', 'pretext', 'one', {'1': (1, 1)}),
        *measured('all', 'x', 'one', {'1': (3, 3), '2': (2, 2), '3': (1, 1)}),
    ],
)


@pytest.fixture
def found():
    rows = SCRIPT['correlations'](REPORT, ['knn/k', 'all/x'])
    return {
        (row.pop('metric'), row.pop('over')): row
        for row in rows
        if row.pop('target') == 'knn/k'
    }


def test_stages(found):
    # three pairs: all in order; one of three in order
    assert found['free/up', 'stages of one'] == dict(
        points=3, spearman=[1, -0.5], kendall=[1, pytest.approx(-1 / 3)]
    )
    # less is better, so its order is that of the labels
    assert found['free/down', 'stages of one']['kendall'] == [1, 1]
    # and the accuracies among each other
    assert found['all/x', 'stages of one']['kendall'] == [-1, -1]


def test_networks(found):
    # up (3, 7, 6) to k (30, 5, 25); in the second run (1, 7, 6) to
    # (30, 40, 25)
    assert found['free/up', 'last stages']['kendall'] == [
        pytest.approx(-1),
        pytest.approx(1 / 3),
    ]


def test_what_has_no_order_or_no_meaning_is_left_out(found):
    assert ('free/up', 'stages of two') not in found
    assert not any(metric.startswith('own') for metric, _ in found)


def test_table():
    rows = list(SCRIPT['correlations'](REPORT, ['knn/k']))
    lines = SCRIPT['write_table'](rows, ['knn/k']).splitlines()
    assert lines[2] == '| free/up | +0.33 (+0.33 to +0.33) | -0.33 |'
    assert lines[3] == '| free/down | +1.00 (+1.00 to +1.00) |  |'


def test_the_same_network_counts_once(found):
    """As untrained ones of two methods may be."""
    twice = dict(
        REPORT,
        entries=[*REPORT['entries'], dict(REPORT['entries'][0], name='twin')],
        measurements=[
            *REPORT['measurements'],
            *(
                dict(one, entry='twin')
                for one in REPORT['measurements']
                if one['entry'] == 'one'
            ),
        ],
    )
    again = {
        (row['metric'], row['over']): row['kendall']
        for row in SCRIPT['correlations'](twice, ['knn/k', 'all/x'])
        if row['target'] == 'knn/k'
    }
    assert again == {key: row['kendall'] for key, row in found.items()}
