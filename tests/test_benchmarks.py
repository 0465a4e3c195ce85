"""The benchmark script runs; how fast is not for a test to say."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


# in place of a package that is not required
FAISS = """
import numpy as np

__version__ = 'stand-in'


def omp_set_num_threads(count):
    assert count > 0


class IndexFlatIP:
    def __init__(self, channels):
        self.rows = np.empty((0, channels), np.float32)

    def add(self, rows):
        self.rows = np.concatenate([self.rows, rows])

    def search(self, queries, k):
        products = queries @ self.rows.T
        order = np.argsort(-products, 1)[:, :k]
        return np.take_along_axis(products, order, 1), order
"""


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Names to contents of the JSON files of a tiny run."""
    out = tmp_path_factory.mktemp('benchmarks') / 'out'
    (out.parent / 'faiss.py').write_text(FAISS)
    paths = [str(out.parent), os.environ['PYTHONPATH']]
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
            *('--queries', '7', '--reference', '60', '--knn-channels', '4'),
            *('--neighbors', '2', '9', '--knn-repetitions', '2'),
        ],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
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
        ('knn_search', [('at most', 1), ('at most', 1)], 2),
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


@pytest.fixture
def knn_search(monkeypatch):
    """The function."""
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    from knn_search import knn_search

    return knn_search


def test_without_faiss(knn_search, monkeypatch):
    monkeypatch.setitem(sys.modules, 'faiss', None)
    with pytest.raises(Exception, match=r'faiss.* not installed: pip install'):
        knn_search(2, 9, 3, [1], 1)


def test_other_neighbors_than_those_of_faiss(knn_search, monkeypatch):
    module = ModuleType('faiss')
    exec(FAISS.replace('-products', 'products'), vars(module))
    monkeypatch.setitem(sys.modules, 'faiss', module)
    with pytest.raises(RuntimeError, match=r'1 neighbors: .* others than'):
        knn_search(2, 9, 3, [1], 1)
