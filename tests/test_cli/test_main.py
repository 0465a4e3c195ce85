"""The console command: what all commands share."""

import re
import runpy
import subprocess
import sys

import pytest
import torch

import mm_rotssl
from mm_rotssl.cli import main
from mm_rotssl.cli.common import ends_with_error, error_message
from mm_rotssl.cli.main import COMMANDS
from mm_rotssl.utils import InputError

# of the process that answers --help
HEAVY = ('torch', 'mmengine', 'mmcv', 'numpy', 'matplotlib', 'rich', 'sklearn')


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['mm-rotssl', *words])
    main()


def test_help_imports_nothing_heavy():
    """Of each command, and of all, in one process."""
    code = f"""
import sys
from mm_rotssl.cli import main
for words in ([], *([name] for name in {COMMANDS}), ['--version']):
    last = [] if words == ['--version'] else ['--help']
    sys.argv = ['mm-rotssl', *words, *last]
    try:
        main()
    except SystemExit as error:
        assert not error.code, (words, error.code)
print('imported:', sorted(set({HEAVY}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'imported: []'
    # each has told what it takes
    for name in COMMANDS:
        assert f'usage: mm-rotssl {name} ' in done.stdout


def test_overview_has_a_line_for_each_command(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, '--help')
    text = capsys.readouterr().out
    for name in COMMANDS:
        # long names have a line of their own
        assert re.search(rf'^ +{name}\s+[A-Z]', text, re.M), name


def test_version(monkeypatch, capsys):
    with pytest.raises(SystemExit) as info:
        call(monkeypatch, '--version')
    assert info.value.code == 0
    assert capsys.readouterr().out == f'{mm_rotssl.__version__}\n'


@pytest.mark.parametrize('words', [(), ('trian', 'a.py')])
def test_without_a_command(monkeypatch, capsys, words):
    with pytest.raises(SystemExit) as info:
        call(monkeypatch, *words)
    assert info.value.code == 2
    assert 'COMMAND' in capsys.readouterr().err


def test_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mm_rotssl', '--version'])
    with pytest.raises(SystemExit):
        runpy.run_module('mm_rotssl', run_name='__main__')
    assert capsys.readouterr().out == f'{mm_rotssl.__version__}\n'


class Broken(torch.utils.data.Dataset):
    """Whose images can't be read."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise InputError('"a.jpg" is broken.\nValueError: really: remove it.')


@pytest.mark.parametrize('workers', [0, 1])
def test_one_line_from_a_process_of_a_dataloader(workers):
    """PyTorch puts the traceback of the process into the message."""

    @ends_with_error
    def run():
        list(torch.utils.data.DataLoader(Broken(), num_workers=workers))

    with pytest.raises(SystemExit) as info:
        run()
    said = '"a.jpg" is broken.\nValueError: really: remove it.'
    assert str(info.value) == f'Error: {said}'


@pytest.mark.parametrize(
    'text', ['Caught a cold.', 'ValueError: none', 'a\nValueError: b']
)
def test_what_an_error_says_is_not_cut(text):
    assert error_message(ValueError(text)) == text
