"""Run the commands of README.md, in their order, on small data.

    .venv/bin/python .dev_scripts/readme_commands.py

A copy of the checkout's files stands for the clone, and the environment of
the Python that runs this for the one that the Makefile would make there. Each
command is run as it is written, with the folder of images filled in, and with
more options at its end that make it short. A command that is not known here
is an error, so that none is added to README.md and never run.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

# What stands in README.md for something of the reader's own, or follows from
# the short runs.
FILLED_IN = {
    '/path/to/images': '{images}',
    'epoch_15.pth': 'epoch_1.pth',
    'epoch_100.pth': 'epoch_1.pth',
}
# Of an evaluation on the digits.
FEW_DIGITS = (
    '--protocols knn --protocol-options knn.k=[5] --max-reference 100 '
    '--cfg-options val_dataloader.dataset.indices=50'
)
# Start of a command -> options that make it short, or None: it is not run.
SHORT = {
    # what this script does; Git has its own tests
    'git clone': None,
    'make demo ': f'DEMO_EPOCHS=1 DEMO_EVALUATE="{FEW_DIGITS}"',
    # continuous integration has just done it
    'make test ': None,
    'make demo-transfer ': 'TRANSFER_SEEDS=0 TRANSFER_EPOCHS=1 UNLABELED=64 '
    'TRANSFER_COMPARE="--images 1 --cfg-options train_cfg.max_iters=2 '
    'train_cfg.val_interval=2"',
    'mm-rotssl train ': '--epochs 1 --batch-size 4 --crop-size 32',
    'mm-rotssl estimate-noise ': 'train_cfg.max_epochs=1 '
    'train_dataloader.batch_size=4 --folds 2',
    'mm-rotssl evaluate ': FEW_DIGITS,
    'mm-rotssl export ': '',
    # tests/test_package.py installs the wheel
    'pip install ': None,
}


def read_commands(text: str) -> list[str]:
    """Find the commands of a page.

    Args:
        text (str): Markdown.

    Returns:
        list[str]: The lines of the blocks of shell commands, without
        comments; those that end with a backslash are joined.
    """
    blocks = re.findall(
        r'^```shell\n(.*?)^```', text, re.DOTALL | re.MULTILINE
    )
    lines = ''.join(blocks).replace('\\\n', ' ').splitlines()
    stripped = (re.sub(r'(^|\s+)#.*', '', line) for line in lines)
    return [' '.join(line.split()) for line in stripped if line.strip()]


def shorten(command: str, images: Path) -> str | None:
    """Make a command short.

    Args:
        command (str): As it is written.
        images (Path): Folder of the reader's own images.

    Returns:
        str, optional: What to run; None if it is not to be run.

    Raises:
        SystemExit: If the command is not known.
    """
    known = [
        options
        for start, options in SHORT.items()
        if f'{command} '.startswith(start)
    ]
    if not known:
        raise SystemExit(
            f'README.md: how is this made short?\n    {command}\n'
            f'Tell it in {Path(__file__).name}.'
        )
    (options,) = known
    if options is None:
        return None
    for written, filled in FILLED_IN.items():
        command = command.replace(written, filled.format(images=images))
    return f'{command} {options}'.strip()


def copy_checkout(target: Path) -> None:
    """Copy what Git has or would add.

    Args:
        target (Path): New folder.
    """
    listing = subprocess.check_output(
        ['git', 'ls-files', '-coz', '--exclude-standard'], cwd=ROOT, text=True
    )
    for name in listing.split('\0'):
        # not what was deleted and not yet committed
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def main() -> None:
    """Run the commands."""
    with tempfile.TemporaryDirectory() as temporary:
        checkout, images = Path(temporary) / 'mm_rotssl', Path(temporary, 'my')
        copy_checkout(checkout)
        images.mkdir()
        rng = np.random.default_rng(0)
        for index in range(8):
            pixels = rng.integers(256, size=(48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f'{index}.png')

        environment = Path(sys.prefix)
        (checkout / '.venv').symlink_to(environment)
        # the environment is complete, whatever the dates of the copied files
        done = [f'.venv/.{stage}-done' for stage in ('runtime', 'dev', 'test')]
        make = ' '.join(['make', *(f'-o {stamp}' for stamp in done)])
        env = {
            **os.environ,
            'PATH': f'{environment / "bin"}{os.pathsep}{os.environ["PATH"]}',
            'PYTHONPATH': str(checkout),
        }
        text = (ROOT / 'README.md').read_text(encoding='utf-8')
        for command in read_commands(text):
            short = shorten(command, images)
            if short is None:
                print(f'not run   {command}', flush=True)
                continue
            started = time.perf_counter()
            ended = subprocess.run(
                re.sub('^make', make, short),
                shell=True,
                cwd=checkout,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            seconds = time.perf_counter() - started
            if ended.returncode:
                raise SystemExit(
                    f'{ended.stdout[-4000:]}\nfailed    {command}\nas        '
                    f'{short}'
                )
            print(f'{seconds:6.1f} s  {command}', flush=True)


if __name__ == '__main__':
    main()
