"""Break the package on purpose, one fault at a time: do the tests notice?

Each entry of .dev_scripts/mutants.json is a fault that a test has to catch:
``find``, a text that its ``file`` holds exactly once, becomes ``replace``, and
the ``tests`` named there are run until the first one fails. Whoever rewrites
tests shows so that the new ones catch what the old ones did. Run it with the
Python of the environment that has the package's dependencies:

    .venv/bin/python .dev_scripts/mutants.py --out work_dirs/mutants.json

The working tree stays as it is: files are broken in a copy of it. The exit
status is 0 if every fault is caught.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / '.dev_scripts/mutants.json'
KEYS = {'id', 'breaks', 'file', 'find', 'replace', 'tests'}
# exit status of pytest; with the others no test has told anything
OUTCOMES = {0: 'survived', 1: 'caught'}
# Slow to import. Each run of tests is forked from a process that has them,
# but not the package.
HOSTS = ['pytest', 'mmpretrain.models', 'mmengine.runner', 'sklearn.manifold']


def problems(mutants: list[dict], tree: Path) -> list[str]:
    """Say which entries don't fit the files of a tree.

    Args:
        mutants (list[dict]): The entries.
        tree (Path): Folder of the repository.

    Returns:
        list[str]: A line for each problem; none if all can be run.
    """

    def read(name: str) -> str:
        file = tree / name
        return file.read_text(encoding='utf-8') if file.is_file() else ''

    found = []
    seen: set[str] = set()
    for mutant in mutants:
        name = mutant.get('id', '')
        if mutant.keys() != KEYS or name in seen or not mutant['tests']:
            found.append(f'{name}: needs {", ".join(sorted(KEYS))}, once')
            continue
        seen.add(name)
        count = read(mutant['file']).count(mutant['find'])
        if count != 1:
            found.append(
                f'{name}: {mutant["file"]} holds {mutant["find"]!r} {count} '
                'times, not once'
            )
        for test in mutant['tests']:
            path, *function = test.split('::')
            text = read(path)
            if not text or not all(f'def {f}(' in text for f in function):
                found.append(f'{name}: there is no test {test}')
    return found


def copy_tree(tree: Path, target: Path) -> None:
    """Copy the files that git knows, as they are in the working tree."""
    names = subprocess.check_output(['git', 'ls-files', '-z'], cwd=tree)
    for name in filter(None, names.decode().split('\0')):
        # it may have been deleted since the last commit
        if (tree / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, target / name)


def pytest_main(tree: Path, tests: list[str], log: Path) -> None:
    """Run tests until one fails; the exit status is pytest's."""
    # with what they start, to be stopped together
    os.setsid()
    with log.open('wb') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    # a file may be broken in the second in which it was compiled
    sys.dont_write_bytecode = True
    os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE='1')
    # with it, pytest's summary has several lines a test
    os.environ.pop('CI', None)
    import pytest

    os._exit(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', *tests]))


def run_tests(tree: Path, tests: list[str], timeout: float) -> dict:
    """Run tests in a process of their own.

    Args:
        tree (Path): Folder of the repository.
        tests (list[str]): Files, or FILE::TEST.
        timeout (float): Seconds after which they are stopped.

    Returns:
        dict: ``outcome``, 'caught' (a test failed), 'survived' (all passed),
        'timeout' or 'error' (the tests could not be run); ``seconds``; and
        ``last``, the end of what pytest said.
    """
    log = tree.with_suffix('.log')
    start = time.monotonic()
    context = multiprocessing.get_context('forkserver')
    process = context.Process(target=pytest_main, args=(tree, tests, log))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        outcome = 'timeout'
    else:
        outcome = OUTCOMES.get(process.exitcode, 'error')
    return dict(
        outcome=outcome,
        seconds=round(time.monotonic() - start, 1),
        last=log.read_text(errors='replace').strip().splitlines()[-3:],
    )


def run_mutant(tree: Path, mutant: dict, timeout: float) -> dict:
    """Break a copy of the repository, run the tests, and mend it again."""
    file = tree / mutant['file']
    text = file.read_text(encoding='utf-8')
    broken = text.replace(mutant['find'], mutant['replace'])
    file.write_text(broken, encoding='utf-8')
    found = run_tests(tree, mutant['tests'], timeout)
    file.write_text(text, encoding='utf-8')
    return {'id': mutant['id'], 'breaks': mutant['breaks'], **found}


def run_all(args: argparse.Namespace, mutants: list[dict]) -> list[dict]:
    """Run the tests on the sound tree, then on each broken one."""
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(args.jobs):
            tree = Path(temporary) / f'{number}'
            copy_tree(args.tree, tree)
            trees.put(tree)
        if not args.skip_sound:
            tests = sorted({test for m in mutants for test in m['tests']})
            found = run_tests(tree, tests, args.timeout * len(mutants))
            print(f'unbroken  {found["seconds"]:6.1f} s', flush=True)
            if found['outcome'] != 'survived':
                raise SystemExit(
                    'The tests fail, or cannot be run, on the sound tree:\n'
                    + '\n'.join(found['last'])
                )

        def work(mutant: dict) -> dict:
            tree = trees.get()
            result = run_mutant(tree, mutant, args.timeout)
            trees.put(tree)
            return result

        with ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(work, mutants):
                results.append(result)
                print(
                    f'{result["outcome"]:9} {result["seconds"]:6.1f} s  '
                    f'{result["id"]}',
                    flush=True,
                )
                if args.out:
                    # what is known stays if the run is interrupted
                    args.out.parent.mkdir(parents=True, exist_ok=True)
                    args.out.write_text(json.dumps(results, indent=1) + '\n')
    return results


def main() -> None:
    """Check the list, or run it."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='only see whether all entries fit the files',
    )
    parser.add_argument(
        '--only', nargs='+', metavar='ID', help='only these entries'
    )
    parser.add_argument(
        '--jobs', type=int, default=1, help='runs at a time (default: 1)'
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=300,
        help='seconds for an entry (default: 300)',
    )
    parser.add_argument(
        '--skip-sound',
        action='store_true',
        help='do not run the tests on the sound tree first',
    )
    parser.add_argument('--out', type=Path, help='JSON file of the results')
    parser.add_argument(
        '--tree', type=Path, default=ROOT, help='another checkout'
    )
    parser.add_argument(
        '--list', type=Path, default=LIST, help='another list of faults'
    )
    args = parser.parse_args()
    mutants = json.loads(args.list.read_text(encoding='utf-8'))
    found = problems(mutants, args.tree)
    if args.only:
        unknown = set(args.only) - {mutant['id'] for mutant in mutants}
        found += [f'--only {name}: no such entry' for name in sorted(unknown)]
        mutants = [m for m in mutants if m['id'] in args.only]
    if found:
        raise SystemExit('\n'.join(found))
    if args.check:
        return
    multiprocessing.get_context('forkserver').set_forkserver_preload(HOSTS)
    results = run_all(args, mutants)
    caught = sum(result['outcome'] == 'caught' for result in results)
    print(f'{caught} of {len(results)} caught')
    if caught < len(results):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
