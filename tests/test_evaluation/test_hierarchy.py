import json
import warnings

import pytest

from mm_rotssl.evaluation import read_hierarchy

CLASSES = ['pansy', 'oak', 'stone', 'rose', 'elm, Ulmus']
PARENTS = {
    'oak': 'tree',
    'elm, Ulmus': 'tree',
    'rose': 'flower',
    'pansy': 'flower',
    'granite': 'rock',
}


@pytest.fixture(params=['csv', 'json'])
def file(request, tmp_path):
    path = tmp_path / f'plants.{request.param}'
    if request.param == 'json':
        path.write_text(json.dumps(PARENTS))
    else:
        # as a spreadsheet writes it
        lines = ['class,superclass']
        lines += [f'"{name}",{parent}' for name, parent in PARENTS.items()]
        path.write_text('\r\n'.join([*lines, '']), encoding='utf-8-sig')
    return path


def test_file(file):
    with pytest.warns(UserWarning, match="lacks 1 of the 5 .*: 'stone'") as w:
        superclasses, names = read_hierarchy(file, CLASSES)
    assert w[0].filename == __file__
    # "rock" has no class of the dataset
    assert names == ['flower', 'tree']
    assert superclasses.tolist() == [0, 1, -1, 0, 1]
    assert superclasses.dtype == 'int64'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        superclasses, names = read_hierarchy(str(file), ['granite', 'oak'])
    assert (superclasses.tolist(), names) == ([0, 1], ['rock', 'tree'])


def test_file_of_other_classes(file):
    with pytest.raises(ValueError, match=r"none of the 6 .*'0', .*'4', \.\."):
        read_hierarchy(file, list('012345'))
    with pytest.raises(ValueError, match=r'level=3 .*ancestor=None'):
        read_hierarchy(file, CLASSES, level=3)
    with pytest.raises(ValueError, match='ancestor=n1 '):
        read_hierarchy(file, CLASSES, ancestor='n1')


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('a.csv', '', 'line 1 must be the header'),
        ('a.csv', 'oak,tree\n', 'line 1 must be the header'),
        ('a.csv', 'class,superclass\noak,tree\nelm\n', r"line 3 .*\['elm'\]"),
        ('a.csv', 'class,superclass\n\nelm,\n', r"line 3 .*\['elm', ''\]"),
        ('a.csv', 'class,superclass\nelm,a,b\n', 'line 2 .* Quote'),
        (
            'a.csv',
            'class,superclass\nelm,a\nelm,a\nelm,b\n',
            "line 4: the class 'elm' belongs to 'b', further up to 'a'",
        ),
        (
            'a.json',
            '{"oak": "tree",\n "elm": }',
            r'a\.json is no JSON.*line 2',
        ),
        (
            'a.json',
            '{"oak": "tree", "ash": "tree", "oak": "flower"}',
            r"key 'oak' twice, with 'tree' and with 'flower'",
        ),
        ('a.json', '["oak"]', 'one object'),
        ('a.json', '{"oak": 3}', 'one object'),
        ('a.txt', 'oak tree', r'a\.txt must be a \.csv or \.json'),
    ],
)
def test_malformed_file(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_hierarchy(tmp_path / name, ['oak', 'elm'])


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        read_hierarchy(tmp_path / 'nowhere', ['oak'], level=1)


#            root
#        /          \        depth
#     life           thing   1
#    /    \          /   \
#  plant  animal  tool   c5  2
#  /  \   |    \    |
# c0  c1  bird c3  c4        3
#          |
#         c2                 4
EDGES = """\
root life
root thing
life plant
life animal
thing tool
thing c5
plant c0
plant c1
animal bird
animal c3
bird c2
tool c4
stray lost
"""
NODES = ['c0', 'c1', 'c2', 'c3', 'c4', 'c5']
NAMES = ['daisy', 'crane, tall', 'crane', 'dog', 'crane', 'cup']


def write(folder, edges=EDGES, info=None, names=None):
    (folder / 'class_hierarchy.txt').write_text(edges)
    if info is None:
        info = [list(e) for e in zip(range(6), NODES, NAMES, strict=True)]
    (folder / 'dataset_class_info.json').write_text(
        info if isinstance(info, str) else json.dumps(info)
    )
    if names is None:
        nodes = sorted(set(edges.split()))
        names = ''.join(f'{node}\tthe {node}, so\n' for node in nodes)
    (folder / 'node_names.txt').write_text(names)
    return folder


LEVELS = [
    (0, None, ['root'], [0, 0, 0, 0, 0, 0]),
    (1, None, ['life', 'thing'], [0, 0, 0, 0, 1, 1]),
    # a class at the level is its own superclass
    (2, None, ['animal', 'c5', 'plant', 'tool'], [2, 2, 0, 0, 3, 1]),
    (3, None, ['bird', 'c0', 'c1', 'c3', 'c4'], [1, 2, 0, 3, 4, -1]),
    (4, None, ['c2'], [-1, -1, 0, -1, -1, -1]),
    (2, 'life', ['animal', 'plant'], [1, 1, 0, 0, -1, -1]),
    (3, 'animal', ['bird', 'c3'], [-1, -1, 0, 1, -1, -1]),
]


@pytest.mark.parametrize('classes', [NODES, NAMES])
@pytest.mark.parametrize(('level', 'ancestor', 'names', 'expected'), LEVELS)
def test_folder(tmp_path, classes, level, ancestor, names, expected):
    superclasses, found = read_hierarchy(
        write(tmp_path), classes, level, ancestor
    )
    assert found == [f'the {name}, so' for name in names]
    assert superclasses.tolist() == expected


def test_folder_with_other_order_and_classes(tmp_path):
    info = [list(e) for e in zip(range(6), NODES, NAMES, strict=True)]
    # a class that has a number, but no edge
    write(tmp_path, info=[*info, [6, 'c6', 'kite']])
    with pytest.warns(UserWarning, match="2 of the 4 .*: 'kite', 'n9'") as w:
        superclasses, names = read_hierarchy(
            tmp_path, ['c4', 'kite', 'n9', 'c0'], 1
        )
    assert w[0].filename == __file__
    assert superclasses.tolist() == [1, -1, -1, 0]
    assert names == ['the life, so', 'the thing, so']
    # a name that is unique may stand anywhere
    superclasses, _ = read_hierarchy(tmp_path, ['cup', 'daisy'], 1)
    assert superclasses.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"'crane', number 1 .* c2, c4"):
        read_hierarchy(tmp_path, ['daisy', 'crane'], 1)
    with pytest.raises(ValueError, match=r"none of the 2 classes .*'a', 'b'"):
        read_hierarchy(tmp_path, ['a', 'b'], 1)


def test_depth_is_the_shortest_path(tmp_path):
    # by way of thing, tool would be at depth 2 and c4 at depth 3
    folder = write(tmp_path, EDGES + 'root tool\n')
    superclasses, names = read_hierarchy(folder, NODES, 2)
    assert names == [f'the {n}, so' for n in ('animal', 'c4', 'c5', 'plant')]
    assert superclasses.tolist() == [3, 3, 0, 0, 1, 2]


def test_class_below_several(tmp_path):
    folder = write(tmp_path, EDGES + 'plant c4\n')
    with pytest.raises(
        ValueError, match=r"'c4' \(c4\) is below .*level=1: life, thing"
    ):
        read_hierarchy(folder, NODES, 1)
    # further up or down they are one
    assert not read_hierarchy(folder, NODES, 0)[0].any()
    superclasses, _ = read_hierarchy(folder, NODES, 2, 'life')
    assert superclasses.tolist() == [1, 1, 0, 0, 1, -1]


@pytest.mark.parametrize(
    ('change', 'arguments', 'message'),
    [
        ({}, dict(level=None), 'level='),
        ({}, dict(level=5), 'level=5: .* 0 to 4 only'),
        ({}, dict(level=-1), 'level=-1: .* 0 to 4 only'),
        ({}, dict(ancestor='n1'), "no node ancestor='n1'"),
        ({}, dict(ancestor='bird'), "level=2 below ancestor='bird'"),
        ({}, dict(ancestor='plant'), "level=2 below ancestor='plant'"),
        (dict(edges=EDGES + 'c2 animal\n'), {}, 'cycle: .*bird'),
        (dict(edges=EDGES + 'other c1\n'), {}, 'several roots.*other, ro'),
        (
            dict(edges=EDGES + '\nlife\n'),
            {},
            r"class_hierarchy\.txt, line 15 .*' ' .* 'life'",
        ),
        (
            dict(edges=EDGES + 'a b c\n'),
            {},
            r"class_hierarchy\.txt, line 14 .* 'a b c'",
        ),
        (
            dict(names='root\tentity\nlife being\n'),
            {},
            r"node_names\.txt, line 2 .* 'life being'",
        ),
        (dict(info='[[0, "c0"'), {}, r'info\.json is no JSON'),
        (dict(info={'c0': 'daisy'}), {}, r'info\.json must hold a list'),
        (
            dict(info='[[0, "c0", "x"], [0, "c1", "x"]]'),
            {},
            r"entry 1: class 0 is \('c1', 'x'\), further up \('c0', 'x'\)",
        ),
        (
            dict(info=[[0, 'c0', 'daisy'], ['1', 'c1', 'x']]),
            {},
            r"info\.json, entry 1 .*\['1', 'c1', 'x'\]",
        ),
    ],
)
def test_bad_folder(tmp_path, change, arguments, message):
    folder = write(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        read_hierarchy(folder, NODES, **{'level': 2, **arguments})


@pytest.mark.parametrize(
    'name',
    ['class_hierarchy.txt', 'node_names.txt', 'dataset_class_info.json'],
)
def test_folder_lacks_a_file(tmp_path, name):
    (write(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_hierarchy(tmp_path, NODES, 2)
