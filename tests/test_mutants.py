import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / '.dev_scripts'))

import mutants  # noqa: E402

MUTANTS = json.loads(mutants.LIST.read_text(encoding='utf-8'))


def test_each_fault_can_be_put_in():
    assert mutants.problems(MUTANTS, ROOT) == []


@pytest.fixture
def tree(tmp_path):
    """A package of one line, and the tests of it."""
    folder = tmp_path / 'tree'
    folder.mkdir()
    (folder / 'half.py').write_text('def half(x): return x / 2\n')
    (folder / 'test_half.py').write_text(
        'import time\nfrom half import half\n'
        'def test_zero(): assert half(0) == 0\n'
        'def test_one(): assert half(1) == 0.5\n'
        'def test_slow(): time.sleep(half(1))\n'
    )
    (folder / 'pytest.ini').write_text('[pytest]\n')
    subprocess.run(['git', 'init', '-q'], cwd=folder, check=True)
    subprocess.run(['git', 'add', '.'], cwd=folder, check=True)
    return folder


def entry(name, find, replace, test):
    return dict(
        id=name,
        breaks='half',
        file='half.py',
        find=find,
        replace=replace,
        tests=[f'test_half.py::{test}'],
    )


def run(tree, entries, *options):
    """Run the script, without the hosts that these tests need not."""
    listed = tree.parent / 'list.json'
    listed.write_text(json.dumps(entries))
    code = 'import mutants; mutants.HOSTS = []; mutants.main()'
    words = ['--tree', tree, '--list', listed, *options]
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, words)],
        env={**os.environ, 'PYTHONPATH': str(ROOT / '.dev_scripts')},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_outcomes(tree, tmp_path):
    entries = [
        entry('good', '/ 2', '/ 3', 'test_one'),
        entry('missed', '/ 2', '/ 3', 'test_zero'),
        entry('endless', '/ 2', '* 900', 'test_slow'),
        entry('no-python', 'def', 'de', 'test_one'),
    ]
    out = tmp_path / 'out.json'
    done = run(tree, entries, '--out', out, '--timeout', 10, '--jobs', 2)
    assert done.returncode == 1
    assert '1 of 4 caught' in done.stdout
    found = json.loads(out.read_text())
    assert [(f['id'], f['outcome']) for f in found] == [
        ('good', 'caught'),
        ('missed', 'survived'),
        ('endless', 'timeout'),
        ('no-python', 'error'),
    ]
    assert 'test_half.py::test_one' in '\n'.join(found[0]['last'])
    assert (tree / 'half.py').read_text() == 'def half(x): return x / 2\n'


def test_some_entries(tree):
    entries = [
        entry('good', '/ 2', '/ 3', 'test_one'),
        entry('missed', '/ 2', '/ 3', 'test_zero'),
    ]
    done = run(tree, entries, '--only', 'good')
    assert done.returncode == 0
    assert '1 of 1 caught' in done.stdout
    done = run(tree, entries, '--only', 'bad')
    assert done.returncode == 1
    assert done.stdout == '--only bad: no such entry\n'


def test_sound_tree_must_pass(tree):
    (tree / 'half.py').write_text('def half(x): return x / 4\n')
    done = run(tree, [entry('good', '/ 4', '/ 3', 'test_one')])
    assert done.returncode == 1
    assert 'on the sound tree:\n' in done.stdout
    assert '1 failed' in done.stdout


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(find='x'), r"half.py holds 'x' 2 times, not once"),
        (dict(find='/ 9'), r"half.py holds '/ 9' 0 times"),
        (dict(file='gone.py'), r"gone.py holds '/ 2' 0 times"),
        (dict(tests=['test_half.py::test_on']), 'no test test_half.py::'),
        (dict(tests=['gone.py']), 'no test gone.py'),
        (dict(tests=[]), 'needs breaks, file'),
        (dict(note=''), 'needs breaks, file'),
    ],
)
def test_problems_are_named(tree, change, message):
    good = entry('good', '/ 2', '/ 3', 'test_one')
    assert mutants.problems([good], tree) == []
    (problem,) = mutants.problems([{**good, **change}], tree)
    assert problem.startswith('good: ')
    assert message in problem


def test_a_name_is_there_once(tree):
    good = entry('good', '/ 2', '/ 3', 'test_one')
    (problem,) = mutants.problems([good, good], tree)
    assert 'once' in problem
