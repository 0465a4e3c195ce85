"""Write a test run into the compatibility table of README.md.

`make test` and `make test-openmmlab` call it after a run without failures,
with the Python of the environment that the tests ran in, because it asks that
environment for its versions:

    .venv/bin/python .dev_scripts/compatibility.py onedl work_dirs/junit.xml

In continuous integration (the variable CI is set), or where README.md is
read-only, the row is shown and not written.
"""

import argparse
import os
import platform
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

README = Path(__file__).resolve().parents[1] / 'README.md'
BEGIN = '<!-- compatibility:begin -->'
END = '<!-- compatibility:end -->'
HEADER = [
    '| stack | engine | vision | pretrain | detection | segmentation '
    '| torch | torchvision | Python | passed | skipped | failed |',
    '| --- ' * 12 + '|',
]
# The first one installed fills the column.
COLUMNS = [
    ('onedl-mmengine', 'mmengine'),
    ('onedl-mmcv', 'mmcv-lite', 'mmcv'),
    ('onedl-mmpretrain', 'mmpretrain'),
    ('onedl-mmdetection', 'mmdet'),
    ('onedl-mmsegmentation', 'mmsegmentation'),
]


def installed(distributions: tuple[str, ...]) -> str:
    """Name and version of the first distribution that is installed."""
    for name in distributions:
        try:
            return f'{name} {version(name)}'
        except PackageNotFoundError:
            continue
    return '–'


def counts(junit: Path) -> list[str]:
    """Tests passed, skipped and failed (errors included)."""
    total = {'tests': 0, 'skipped': 0, 'failures': 0, 'errors': 0}
    for suite in ElementTree.parse(junit).iter('testsuite'):
        for key in total:
            total[key] += int(suite.get(key, 0))
    failed = total['failures'] + total['errors']
    passed = total['tests'] - total['skipped'] - failed
    return [str(n) for n in (passed, total['skipped'], failed)]


def row(stack: str, junit: Path) -> str:
    """Make the line of this environment."""
    cells = [
        stack,
        *(installed(names) for names in COLUMNS),
        # Without the local part, which tells CPU and CUDA builds apart.
        version('torch').split('+')[0],
        version('torchvision').split('+')[0],
        platform.python_version(),
        *counts(junit),
    ]
    return f'| {" | ".join(cells)} |'


def update(text: str, stack: str, new_row: str) -> str:
    """Put the row into the table between the two marks.

    Other stacks' rows stay, and the rows are sorted by stack.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f'{README.name} needs the lines {BEGIN} and {END}.')
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    rows = {
        line.split('|')[1].strip(): line
        for line in table.strip().splitlines()[len(HEADER) :]
    }
    rows[stack] = new_row
    # 'onedl', the default, comes before 'openmmlab'.
    body = [*HEADER, *(rows[name] for name in sorted(rows))]
    return f'{before}{BEGIN}\n' + '\n'.join(body) + f'\n{END}{after}'


def main() -> None:
    """Rewrite the row of one stack."""
    parser = argparse.ArgumentParser(description='Fill the README table.')
    parser.add_argument('stack', choices=['onedl', 'openmmlab'])
    parser.add_argument('junit', type=Path, help='pytest --junitxml output')
    args = parser.parse_args()
    new_row = row(args.stack, args.junit)
    print(f'{README.name}: {new_row}')
    if not os.environ.get('CI') and os.access(README, os.W_OK):
        text = README.read_text(encoding='utf-8')
        README.write_text(update(text, args.stack, new_row), encoding='utf-8')


if __name__ == '__main__':
    main()
