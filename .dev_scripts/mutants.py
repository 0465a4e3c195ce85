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
# of pytest; the others mean that the tests were not run
OUTCOMES = {0: 'survived', 1: 'caught'}


def problems(mutants: list[dict], tree: Path) -> list[str]:
    """Say which entries don't fit the files of a tree.

    Args:
        mutants (list[dict]): The entries.
        tree (Path): Folder of the repository.

    Returns:
        list[str]: A line for each problem; none if all can be run.
    """
    found = []
    seen = set()
    for mutant in mutants:
        name = mutant.get('id')
        if mutant.keys() != KEYS or name in seen or not mutant['tests']:
            found.append(f'{name}: needs {", ".join(sorted(KEYS))}, once')
            continue
        seen.add(name)
        file = tree / mutant['file']
        text = file.read_text() if file.is_file() else ''
        if text.count(mutant['find']) != 1:
            found.append(
                f'{name}: {mutant["file"]} holds {mutant["find"]!r} '
                f'{text.count(mutant["find"])} times, not once'
            )
        if mutant['find'] == mutant['replace']:
            found.append(f'{name}: breaks nothing')
        for test in mutant['tests']:
            path, *names = test.partition('[')[0].split('::')
            file = tree / path
            text = file.read_text() if file.is_file() else ''
            if not text or not all(f'def {n}(' in text for n in names):
                found.append(f'{name}: there is no test {test}')
    return found


def copy_tree(tree: Path, target: Path) -> None:
    """Copy the files that git knows, as they are in the working tree."""
    names = subprocess.check_output(['git', 'ls-files', '-z'], cwd=tree)
    for name in filter(None, names.decode().split('\0')):
        # a file may have been deleted since the last commit
        if (tree / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, target / name)


def run_tests(tree: Path, tests: list[str], timeout: float) -> dict:
    """Run tests until one fails.

    Args:
        tree (Path): Folder of the repository.
        tests (list[str]): Files, or FILE::TEST.
        timeout (float): Seconds after which they are stopped.

    Returns:
        dict: ``outcome``, 'caught' (a test failed), 'survived' (all passed),
        'timeout' or 'error' (the tests could not be run); ``seconds``; and
        ``last``, the end of what pytest said.
    """
    environment = {
        **os.environ,
        'PYTHONPATH': str(tree),
        # the file is broken within the second in which it was compiled
        'PYTHONDONTWRITEBYTECODE': '1',
    }
    command = [sys.executable, '-m', 'pytest', '-x', '-q']
    start = time.monotonic()
    with subprocess.Popen(
        [*command, '-p', 'no:cacheprovider', *tests],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # so that the processes which tests start are stopped as well
        start_new_session=True,
        text=True,
        errors='replace',
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
            outcome = OUTCOMES.get(process.returncode, 'error')
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            outcome = 'timeout'
    return dict(
        outcome=outcome,
        seconds=round(time.monotonic() - start, 1),
        last=output.strip().splitlines()[-3:],
    )


def run_mutant(tree: Path, mutant: dict, timeout: float) -> dict:
    """Break a copy of the repository, run the tests, and mend it again."""
    file = tree / mutant['file']
    text = file.read_text()
    file.write_text(text.replace(mutant['find'], mutant['replace']))
    try:
        found = run_tests(tree, mutant['tests'], timeout)
    finally:
        file.write_text(text)
    return {'id': mutant['id'], 'breaks': mutant['breaks'], **found}


def run_all(args: argparse.Namespace, mutants: list[dict]) -> list[dict]:
    """Run the tests on the sound tree, then on each broken one."""
    results: list[dict] = []
    with tempfile.TemporaryDirectory() as temporary:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(args.jobs):
            tree = Path(temporary) / f'{number}'
            copy_tree(args.tree, tree)
            trees.put(tree)
        if not args.skip_sound:
            tests = sorted({test for m in mutants for test in m['tests']})
            found = run_tests(tree, tests, args.timeout * len(mutants))
            print(f'unbroken: {found["seconds"]} s', flush=True)
            if found['outcome'] != 'survived':
                raise SystemExit(
                    "The tests fail, or can't be run, on the unbroken tree:"
                    '\n' + '\n'.join(found['last'])
                )

        def work(mutant: dict) -> dict:
            tree = trees.get()
            try:
                return run_mutant(tree, mutant, args.timeout)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(args.jobs) as pool:
            for result in pool.map(work, mutants):
                results.append(result)
                print(
                    f'{result["outcome"]:9}{result["seconds"]:7.1f} s  '
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
        '--jobs', type=int, default=1, help='processes (default: 1)'
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=300,
        help='seconds a fault (default: 300)',
    )
    parser.add_argument(
        '--skip-sound',
        action='store_true',
        help='do not run the tests on the unbroken tree first',
    )
    parser.add_argument('--out', type=Path, help='JSON file of the results')
    parser.add_argument(
        '--tree', type=Path, default=ROOT, help='another checkout'
    )
    parser.add_argument(
        '--list', type=Path, default=LIST, help='another list of faults'
    )
    args = parser.parse_args()
    mutants = json.loads(args.list.read_text())
    found = problems(mutants, args.tree)
    if args.only:
        unknown = set(args.only) - {mutant['id'] for mutant in mutants}
        found += [f'--only {name}: no such entry' for name in sorted(unknown)]
        mutants = [m for m in mutants if m['id'] in args.only]
    if found:
        raise SystemExit('\n'.join(found))
    if args.check:
        return
    results = run_all(args, mutants)
    caught = sum(result['outcome'] == 'caught' for result in results)
    print(f'{caught} of {len(results)} caught')
    if caught < len(results):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
