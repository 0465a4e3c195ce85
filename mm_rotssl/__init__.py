"""Rotation- and classification-based self-supervised learning.

Importing the package checks that its hosts are there and recent enough, and
does nothing else: modules are registered when a registry is first asked for
one of them.
"""

import importlib.util
import runpy
from pathlib import Path

from packaging.version import Version

from .version import __version__

# The oldest releases that the tests run on. There is no upper bound: a host
# that is too new should fail where it breaks, not here.
_MINIMUM_VERSIONS = {
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmpretrain': '1.2.0',
}

_INSTALL_HINT = """\
Either of these lines installs what is needed, each into an environment that
does not hold the other:
    pip install 'mm-rotssl[onedl]'      (the maintained fork, recommended)
    pip install 'mm-rotssl[openmmlab]'  (OpenMMLab's own last releases)"""


def _installed_version(module: str) -> str | None:
    """Read the version of a host package without importing it.

    ``import mmpretrain`` takes seconds, and two distributions may provide
    each module, so neither the import nor the distribution's metadata is
    the thing to ask: all hosts have a small ``version.py``.

    Args:
        module: Name of a top-level package.

    Returns:
        Its version, or None if it cannot be imported.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / 'version.py'
    # A mere folder of that name is importable as a namespace package.
    if not path.is_file():
        return None
    version: str = runpy.run_path(str(path))['__version__']
    return version


def _check_hosts() -> None:
    """Raise an ImportError that names every missing or outdated host."""
    problems = []
    for module, minimum in _MINIMUM_VERSIONS.items():
        found = _installed_version(module)
        if found is None:
            problems.append(f'{module} is not installed')
        elif Version(found) < Version(minimum):
            problems.append(f'{module} {found} is older than {minimum}')
    if problems:
        raise ImportError(
            f'mm_rotssl {__version__} needs '
            + ', '.join(f'{m}>={v}' for m, v in _MINIMUM_VERSIONS.items())
            + f', but {"; ".join(problems)}.\n{_INSTALL_HINT}'
        )


_check_hosts()

__all__ = ['__version__']
