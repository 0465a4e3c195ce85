import re
from argparse import Namespace
from pathlib import Path

import pytest

from mm_rotssl.cli.configs import run
from mm_rotssl.utils import config_files, config_summary
from mm_rotssl.utils.config_files import find_config, list_configs

ROOT = Path(__file__).resolve().parents[2]
NAME = 'rotnet_resnet18_1xb64-100e_custom'
FILE = ROOT / 'configs/rotnet' / f'{NAME}.py'


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package in site-packages, with copies of three configs."""
    site = tmp_path / 'site'
    # of somebody else
    (site / 'configs').mkdir(parents=True)
    (site / 'configs' / 'rotnet_other.py').write_text('')
    monkeypatch.setattr(config_files, 'PACKAGE', site / 'mm_rotssl')
    folder = site / 'mm_rotssl/.mim/configs'
    for name in ('_base_/runtime', 'a/RotNet_x', 'b/same', 'c/same'):
        path = folder / f'{name}.py'
        path.parent.mkdir(parents=True)
        path.write_text('')
    return folder


def test_all_configs_of_the_checkout_are_listed():
    files = {
        path
        for path in (ROOT / 'configs').rglob('*.py')
        if '_base_' not in str(path)
    }
    listed = list_configs()
    assert {path for paths in listed.values() for path in paths} == files
    assert list(listed) == sorted({path.stem for path in files})
    # so that each can be given by name
    assert all(len(paths) == 1 for paths in listed.values())


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', str(FILE)])
def test_found_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == FILE


def test_a_file_has_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f'{NAME}.py').write_text('')
    assert find_config(f'{NAME}.py') == Path(f'{NAME}.py')
    assert find_config(NAME) == FILE


def test_installed_package(installed):
    assert list(list_configs()) == ['RotNet_x', 'same']
    assert list(list_configs('rotNET')) == ['RotNet_x']
    assert find_config('RotNet_x') == installed / 'a/RotNet_x.py'
    with pytest.raises(FileNotFoundError, match='Did you mean RotNet_x'):
        find_config('RotNet_z')
    with pytest.raises(FileNotFoundError):
        find_config('rotnet_other')


def test_ambiguous_name(installed):
    files = re.escape(f'{installed}/b/same.py, {installed}/c/same.py')
    with pytest.raises(ValueError, match=f'"same.py" is .* 2 .*: {files}$'):
        find_config('same.py')


def test_unknown_name():
    with pytest.raises(
        FileNotFoundError,
        match=r'"rotnet_resnet18_custom".* not exist \(looked from "/.*'
        rf'Did you mean {NAME}.* mm-rotssl configs$',
    ):
        find_config('rotnet_resnet18_custom')
    # a path is never taken for a name
    with pytest.raises(FileNotFoundError, match=f'Did you mean {NAME}'):
        find_config(f'other/{NAME}.py')
    with pytest.raises(FileNotFoundError) as info:
        find_config('zzz')
    assert 'Did you mean' not in str(info.value)


@pytest.mark.parametrize(
    ('text', 'summary'),
    [
        ('# One of\n# two. Three.\n', 'One of two.'),
        ('# No 1.5 end\nx = 1\n# more.', 'No 1.5 end'),
        ('x = 1\n# later\n', ''),
        ('', ''),
    ],
)
def test_summary(tmp_path, text, summary):
    (tmp_path / 'a.py').write_text(text)
    assert config_summary(tmp_path / 'a.py') == summary


def test_command(capsys):
    run(Namespace(filter='rotnet_resnet'))
    lines = capsys.readouterr().out.splitlines()
    names = [path.stem for path in FILE.parent.glob('rotnet_resnet*.py')]
    assert lines[::2] == sorted(names)
    assert lines[lines.index(NAME) + 1].startswith('    RotNet on a folder')
    with pytest.raises(SystemExit, match='Error: No shipped config has "zz"'):
        run(Namespace(filter='zz'))
