"""The benchmark script runs; how fast is not for a test to say."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Names to contents of the JSON files of a tiny run."""
    out = tmp_path_factory.mktemp('benchmarks') / 'out'
    done = subprocess.run(
        [
            *(sys.executable, 'benchmarks/run.py', '--out', out),
            *('--width', '6', '--batch-size', '2', '--iterations', '2'),
            *('--loop-repetitions', '2', '--path-repetitions', '3'),
            *('--images', '2'),
            *('--bank-batch-size', '2', '--negatives', '4', '--rows', '50'),
            *('--row-series', '20', '40', '--bank-repetitions', '2'),
            *('--arch', '2c3-2f', '--patches', '3', '--seeds', '5'),
            *('--num-sampled', '4', '--channels', '3'),
            *('--seed-series', '5', '9', '--exemplar-repetitions', '2'),
            *('--loss-batch-size', '8', '--classes', '30', '20'),
            *('--views', '3', '--loss-repetitions', '2'),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'goal' in done.stdout
    return {path.stem: json.loads(path.read_text()) for path in out.iterdir()}


@pytest.mark.parametrize(
    ('name', 'goals', 'repetitions'),
    [
        ('training_loop', [('at least', 0.95)], 2),
        ('data_path', [('at most', 1.3), ('at most', 0.5)], 3),
        ('worker_bytes', [('at most', 0.25), ('at most', 0.0625)], 1),
        (
            'memory_bank',
            [
                ('at most', 0.1),
                ('at most', 1.1),
                ('at most', 1.5),
                ('at most', 1.5),
            ],
            2,
        ),
        ('exemplar_loop', [('at least', 0.9)], 2),
        ('deformation', [('at least', 10), ('at least', 10)], 2),
        (
            'exemplar_head',
            [('at most', 1), ('at most', 1), ('at most', 1.5)],
            2,
        ),
        ('self_classifier_loss', [('at most', 1 / 3), ('at most', 1)], 2),
    ],
)
def test_files_hold_what_a_reader_needs(results, name, goals, repetitions):
    result = results[name]
    assert result['benchmark'] == name
    assert {'cpu', 'cores', 'torch_threads', 'load_average'} <= set(
        result['machine']
    )
    assert {'torch', 'mmcv', 'mmengine'} <= set(result['machine']['versions'])
    assert result['settings']
    assert all(figure > 0 for figure in result['figures'].values())
    found = [(c['goal_is'], c['goal']) for c in result['comparisons']]
    assert found == goals
    for comparison in result['comparisons']:
        ratios = comparison['ratios']
        assert len(ratios) == repetitions
        assert comparison['min'] == min(ratios) > 0
        assert comparison['max'] == max(ratios)
        assert comparison['median'] == statistics.median(ratios)
        assert comparison['met'] is (
            comparison['median'] >= comparison['goal']
            if comparison['goal_is'] == 'at least'
            else comparison['median'] <= comparison['goal']
        )


def test_bytes_are_those_of_the_tensors(results):
    figures = results['worker_bytes']['figures']
    assert figures['ours, bytes per image'] == 3 * 224 * 224
    ratios = [c['median'] for c in results['worker_bytes']['comparisons']]
    assert ratios == [1 / 4, 1 / 16]
