"""Imports run one way, and the command line imports nothing heavy."""

import ast
import sys
from pathlib import Path

import pytest

import mm_rotssl

ROOT = Path(mm_rotssl.__file__).parent
# Parts of one level do not import each other.
LEVELS = (
    ('registry', 'utils', 'version'),
    ('ops',),
    ('datasets', 'models'),
    ('evaluation',),
    # its validation loops measure with evaluation's functions
    ('engine',),
    ('converters', 'visualization'),
    ('apis',),
    ('cli',),
    ('__main__',),
)
LEVEL_OF = {part: i for i, parts in enumerate(LEVELS) for part in parts}
# what parsing the command line may need, besides the standard library
LIGHT = (
    'mm_rotssl.cli',
    'mm_rotssl.converters.libraries',
    'mm_rotssl.version',
)


def name_of(path):
    parts = ('mm_rotssl', *path.relative_to(ROOT).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported(nodes, path):
    """Absolute names of the modules that statements of a file import."""
    package = name_of(path).split('.')
    if path.name != '__init__.py':
        package.pop()
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level]
            module = '.'.join(base if node.level else [])
            if node.module:
                module = f'{module}.{node.module}'.lstrip('.')
            # names of the package itself are parts of it
            yield from (
                f'{module}.{alias.name}' if module == 'mm_rotssl' else module
                for alias in node.names
            )


def part_of(module):
    names = module.split('.')
    return names[1] if names[0] == 'mm_rotssl' and len(names) > 1 else None


def outside_functions(tree):
    """Statements that run at import, but those for type checkers."""
    for node in tree.body:
        if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test):
            continue
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from ast.walk(node)


@pytest.mark.parametrize(
    ('code', 'file', 'modules'),
    [
        ('import numpy as np', 'ops/a.py', ['numpy']),
        ('from . import b', 'ops/a.py', ['mm_rotssl.ops']),
        ('from .b import c', 'ops/a.py', ['mm_rotssl.ops.b']),
        ('from ..b import c', 'models/heads/a.py', ['mm_rotssl.models.b']),
        ('from ..b import c', 'ops/__init__.py', ['mm_rotssl.b']),
        ('from mm_rotssl import ops', 'cli/a.py', ['mm_rotssl.ops']),
        ('from mm_rotssl.ops import b', 'cli/a.py', ['mm_rotssl.ops']),
    ],
)
def test_names_of_imports(code, file, modules):
    tree = ast.parse(code)
    assert list(imported(ast.walk(tree), ROOT / file)) == modules


def test_every_part_has_a_level():
    parts = {
        path.relative_to(ROOT).parts[0].removesuffix('.py')
        for path in ROOT.rglob('*.py')
    }
    assert parts <= {'__init__', *LEVEL_OF}


def test_direction():
    wrong = []
    for path in sorted(ROOT.rglob('*.py')):
        own = part_of(name_of(path))
        if own is None:
            continue
        # in functions too
        nodes = ast.walk(ast.parse(path.read_text()))
        for module in imported(nodes, path):
            part = part_of(module)
            if part in (None, own):
                continue
            if part not in LEVEL_OF or LEVEL_OF[part] >= LEVEL_OF[own]:
                wrong.append(f'{path.relative_to(ROOT)} imports {module}')
    assert not wrong, '\n'.join(wrong)


def test_command_line_imports_nothing_heavy():
    heavy = []
    for path in sorted((ROOT / 'cli').rglob('*.py')):
        tree = ast.parse(path.read_text())
        for module in imported(outside_functions(tree), path):
            light = module.split('.')[0] in sys.stdlib_module_names
            if not light and not module.startswith(LIGHT):
                heavy.append(f'{path.relative_to(ROOT)} imports {module}')
    assert not heavy, '\n'.join(heavy)
