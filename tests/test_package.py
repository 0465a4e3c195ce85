"""The package as users install it: hosts, wheel, sdist, editable."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import packaging
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
HOSTS = {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmpretrain': '1.2.0'}
INSTALL_LINES = (
    "pip install 'mm-rotssl[onedl]'",
    "pip install 'mm-rotssl[openmmlab]'",
)


def run(*command, cwd):
    """Run a command to its end and return it with its output."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def import_among(tmp_path):
    """A function that imports the package among made-up hosts only.

    It takes ``{module: version}``; what is left out is not installed.
    """

    def import_package(hosts):
        site = tmp_path / 'site'
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(Path(packaging.__file__).parent, site / 'packaging')
        for module, version in hosts.items():
            (site / module).mkdir()
            # Reading a version must not import the host: that takes seconds.
            (site / module / '__init__.py').write_text('raise RuntimeError')
            (site / module / 'version.py').write_text(
                f'__version__ = {version!r}'
            )
        paths = [str(site), str(ROOT)]
        code = f'import sys; sys.path[:0] = {paths}; import mm_rotssl'
        # -S: the real hosts are out of sight.
        return run(sys.executable, '-S', '-c', code, cwd=tmp_path)

    return import_package


@pytest.mark.parametrize(
    'changed',
    [
        {},
        {'mmengine': '0.10.12', 'mmcv': '2.3.6', 'mmpretrain': '1.3.6'},
        {'mmengine': '7.0', 'mmcv': '2.10.0', 'mmpretrain': '1.10.0'},
        {'mmcv': '2.1.0+cpu'},
    ],
)
def test_hosts_at_or_above_the_minimum_are_accepted(import_among, changed):
    done = import_among({**HOSTS, **changed})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('module', HOSTS)
def test_missing_host_is_named_with_the_lines_that_install_it(
    import_among, module
):
    done = import_among({m: v for m, v in HOSTS.items() if m != module})
    assert done.returncode == 1
    assert 'ImportError' in done.stderr
    assert f'{module} is not installed' in done.stderr
    for other in HOSTS.keys() - {module}:
        assert f'{other} is not installed' not in done.stderr
    for line in INSTALL_LINES:
        assert line in done.stderr


@pytest.mark.parametrize(
    ('module', 'version'),
    [
        ('mmengine', '0.9.1'),  # as text, '0.9' is above '0.10'
        ('mmcv', '2.1.0rc1'),
        ('mmpretrain', '1.1.1'),
    ],
)
def test_old_host_is_named_with_both_versions(import_among, module, version):
    done = import_among({**HOSTS, module: version})
    assert done.returncode == 1
    message = f'{module} {version} is older than {HOSTS[module]}'
    assert message in done.stderr
    for line in INSTALL_LINES:
        assert line in done.stderr


def test_all_problems_are_told_at_once(import_among):
    done = import_among({'mmcv': '1.7.2'})
    for problem in (
        'mmengine is not installed',
        'mmcv 1.7.2 is older',
        'mmpretrain is not installed',
    ):
        assert problem in done.stderr


def test_a_folder_named_like_a_host_is_no_host(import_among, tmp_path):
    (tmp_path / 'mmpretrain').mkdir()
    done = import_among({m: v for m, v in HOSTS.items() if m != 'mmpretrain'})
    assert 'mmpretrain is not installed' in done.stderr


def test_real_hosts_are_accepted_and_heavy_ones_not_imported():
    code = """
import sys
import mm_rotssl
heavy = {'torch', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'pkg_resources'}
print(sorted(heavy & set(sys.modules)))
"""
    done = run(sys.executable, '-c', code, cwd=ROOT)
    assert done.stdout.strip() == '[]', done.stderr


def test_custom_imports_of_the_package_do_no_harm(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(
        "custom_imports = dict(imports=['mm_rotssl'], "
        'allow_failed_imports=False)\n'
    )
    code = f"""
from mmengine.config import Config
Config.fromfile({str(config)!r})
from mm_rotssl.registry import MODELS
assert MODELS.get('mm_rotssl.RotNet').__name__ == 'RotNet'
"""
    done = run(sys.executable, '-c', code, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_dependencies_name_no_engine():
    declared = [
        Requirement(line) for line in importlib.metadata.requires('mm-rotssl')
    ]
    always = {
        r.name.lower()
        for r in declared
        if r.marker is None or r.marker.evaluate({'extra': ''})
    }
    assert 'torch' in always
    engines = re.compile(r'(mm|onedl)(?!-rotssl)')
    assert not {name for name in always if engines.match(name)}
    for extra, engine in (
        ('onedl', 'onedl-mmengine'),
        ('openmmlab', 'mmengine'),
        ('transfer', 'onedl-mmdetection'),
        ('dev', 'pytest'),
    ):
        names = {
            r.name
            for r in declared
            if r.marker and r.marker.evaluate({'extra': extra})
        }
        assert engine in names - always


@pytest.mark.parametrize(
    'stack', ['build', 'onedl', 'openmmlab', 'transfer', 'dev']
)
def test_locks_are_exact_with_hashes_and_name_no_place(stack):
    text = (ROOT / f'requirements/{stack}.txt').read_text()
    text = re.sub(r'^#.*\n', '', text, flags=re.MULTILINE)
    lines = text.replace('\\\n', '').splitlines()
    for line in lines:
        requirement, *hashes = line.split(' --hash=sha256:')
        specifiers = list(Requirement(requirement).specifier)
        assert [s.operator for s in specifiers] == ['=='], line
        assert hashes, line
        assert {len(h.strip()) for h in hashes} == {64}, line
    assert not re.search(r'://|^-|^/| @ ', '\n'.join(lines), re.MULTILINE)


def test_actions_are_pinned_by_commit():
    text = (ROOT / '.github/workflows/ci.yml').read_text()
    used = re.findall(r'uses: (\S+)', text)
    assert used
    for action in used:
        assert re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40}', action), action


# --- distributions ----------------------------------------------------------


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """An sdist of the checkout, and the wheel that is made from the sdist."""
    folder = tmp_path_factory.mktemp('dist')
    # A copy: a build writes beside setup.py, and must not be helped by what
    # an earlier build or an editable install left there.
    checkout = folder / 'checkout'
    shutil.copytree(
        ROOT,
        checkout,
        ignore=shutil.ignore_patterns(
            '.*', 'build', 'data', 'dist', 'work_dirs', '*.egg-info'
        ),
    )
    done = run(
        *(sys.executable, '-m', 'build', '--no-isolation'),
        *('--outdir', folder, checkout),
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = folder.glob('*.tar.gz')
    (wheel,) = folder.glob('*.whl')
    return checkout, sdist, wheel


def files_of(checkout, *names):
    """Paths of the files under some names, relative to the checkout."""
    found = set()
    for name in names:
        path = checkout / name
        paths = [path] if path.is_file() else path.rglob('*')
        found |= {
            p.relative_to(checkout).as_posix()
            for p in paths
            if p.is_file() and '__pycache__' not in p.parts
        }
    return found


def test_wheel_holds_the_package_and_its_mim_files(distributions):
    checkout, _, wheel = distributions
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = files_of(checkout, 'mm_rotssl') | {
        f'mm_rotssl/.mim/{name}'
        for name in files_of(checkout, 'configs', 'tools', 'model-index.yml')
    }
    assert 'mm_rotssl/.mim/tools/train.py' in expected
    assert 'mm_rotssl/py.typed' in expected
    packaged = {name for name in names if '.dist-info/' not in name}
    assert packaged == expected


def test_sdist_holds_what_its_build_needs(distributions):
    checkout, sdist, _ = distributions
    with tarfile.open(sdist) as archive:
        names = {
            m.name.partition('/')[2]
            for m in archive.getmembers()
            if not m.isdir()
        }
    expected = files_of(
        checkout,
        *('mm_rotssl', 'configs', 'tools', 'model-index.yml'),
        *('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'),
    )
    assert expected <= names


def test_installed_wheel_imports_and_shows_its_tools(distributions, tmp_path):
    _, _, wheel = distributions
    site = tmp_path / 'site'
    done = run(
        *(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps'),
        *('--target', site, wheel),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
from pathlib import Path
import mm_rotssl
from mm_rotssl.registry import MODELS
assert MODELS.get('mm_rotssl.RotNet').__name__ == 'RotNet'
print(Path(mm_rotssl.__file__).parent)
"""
    done = run(sys.executable, '-c', code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # mmpretrain prints, too
    package = Path(done.stdout.splitlines()[-1])
    assert package == site / 'mm_rotssl'
    help_text = run(
        sys.executable, package / '.mim/tools/train.py', '--help', cwd=tmp_path
    )
    assert help_text.returncode == 0, help_text.stderr
    assert '--resume' in help_text.stdout
    # the console command, and the configs by name in the package
    start = f'import sys; sys.path.insert(0, {str(site)!r}); '
    command = site / 'bin/mm-rotssl'
    done = run(
        sys.executable,
        *(
            '-c',
            f'{start}import runpy; sys.argv[1:] = ["configs", "rotnet"]; '
            f'runpy.run_path({str(command)!r}, run_name="__main__")',
        ),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert 'rotnet_resnet18_1xb64-100e_custom\n' in done.stdout


def test_editable_install_links_to_the_checkout(distributions, tmp_path):
    checkout, _, _ = distributions
    done = run(
        *(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps'),
        *('--no-build-isolation', '--target', tmp_path / 'site'),
        *('--editable', checkout),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    mim = checkout / 'mm_rotssl/.mim'
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (mim / name).resolve() == (checkout / name).resolve()
        # A relative link survives moving the checkout.
        assert not (mim / name).readlink().is_absolute()


def test_changelog_tells_the_version():
    text = (ROOT / 'CHANGELOG.md').read_text()
    version = importlib.metadata.version('mm-rotssl')
    assert version in text
    assert f'version: {version}' in (ROOT / 'CITATION.cff').read_text()
