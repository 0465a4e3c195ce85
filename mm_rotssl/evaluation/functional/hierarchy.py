import csv
import json
import warnings
from collections.abc import Container, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np


def read_hierarchy(
    path: str | Path,
    classes: Sequence[str],
    level: int | None = None,
    ancestor: str | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Read which superclass each class of a dataset belongs to.

    One of two formats, UTF-8:

    1. A file that maps the name of each class to that of its superclass:
       a CSV file of two columns with the header ``class,superclass``, or a
       JSON file of one object, ``{"oak": "tree", "pansy": "flower"}``.
    2. The folder that the authors of BREEDS publish (Santurkar, Tsipras and
       Madry, *BREEDS: Benchmarks for Subpopulation Shift*, ICLR 2021,
       https://arxiv.org/abs/2008.04859). Nodes are named by WordNet's ids:

       - ``class_hierarchy.txt``: an edge a line, the id of the parent, a
         space, the id of the child;
       - ``node_names.txt``: a node a line, its id, a tab, its name;
       - ``dataset_class_info.json``: a list of [number, id, name], one for
         each class of the dataset.

       The depth of a node is the number of edges on the shortest path from
       the root (entity, n00001740). The superclasses are the nodes at depth
       ``level`` that are, or have below them, a class of the dataset. BREEDS
       uses:

       ============  =====  =========
       task          level  ancestor
       ============  =====  =========
       Entity-13     3      none
       Entity-30     4      none
       Living-17     5      n00004258
       Nonliving-26  5      n00021939
       ============  =====  =========

       Its published splits also drop small superclasses and choose as many
       classes of each of the others; that is not done here.

    Args:
        path (str | Path): A ``.csv`` or ``.json`` file, or the folder.
        classes (Sequence[str]): Names of the dataset's classes in their
            order, ``dataset.metainfo['classes']``. With the folder either
            all ids or names as in ``dataset_class_info.json``; of classes
            that share a name, the one at the same number is meant.
        level (int, optional): Depth of the superclasses; needed with the
            folder, and only there.
        ancestor (str, optional): Only superclasses below the node of this
            id. Only with the folder.

    Returns:
        tuple[ndarray, list[str]]: The superclass of each class, int64
        (number of classes,), -1 where it has none, and the superclasses'
        names. Superclasses are numbered in the order of their names in a
        file, of their ids in a folder.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is malformed, no class of the dataset is in
            it, the hierarchy has a cycle or several roots, there is no such
            level or ancestor, or a class belongs to several superclasses.

    Warns:
        UserWarning: If some classes of the dataset are not in the file or
            folder.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'The hierarchy {path} does not exist.')
    if path.is_dir():
        if level is None:
            raise ValueError(
                f'{path} is a folder: say at which depth the superclasses '
                'are, level=...'
            )
        found = _from_folder(path, classes, level, ancestor)
        names = _read_names(path / 'node_names.txt')
    else:
        if level is not None or ancestor is not None:
            raise ValueError(
                f'level={level} and ancestor={ancestor} go with a folder, but '
                f'{path} is none. Drop them or correct the path.'
            )
        found = _from_file(path, classes)
        names = {}
    used = sorted({key for key in found if key is not None})
    number = {key: place for place, key in enumerate(used)}
    superclasses = [-1 if key is None else number[key] for key in found]
    return np.array(superclasses, np.int64), [
        names.get(key, key) for key in used
    ]


def _from_file(path: Path, classes: Sequence[str]) -> list[str | None]:
    """Look up the superclass's name of each class."""
    if path.suffix == '.json':
        parents = _read_json(path)
        if not isinstance(parents, dict) or not all(
            isinstance(parent, str) for parent in parents.values()
        ):
            raise ValueError(
                f'{path} must hold one object that maps names of classes to '
                'names of superclasses.'
            )
    elif path.suffix == '.csv':
        parents = _read_csv(path)
    else:
        raise ValueError(
            f'{path} must be a .csv or .json file or the folder of BREEDS.'
        )
    found = [parents.get(name) for name in classes]
    _check_found(path, classes, found)
    return found


def _read_names(path: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for node, name in _pairs(path, '\t'):
        if names.setdefault(node, name) != name:
            raise ValueError(
                f'{path} names {node} twice, {names[node]!r} and {name!r}. '
                'Keep the right one.'
            )
    return names


def _read_csv(path: Path) -> dict[str, str]:
    parents: dict[str, str] = {}
    # utf-8-sig: spreadsheets write a byte order mark
    with path.open(encoding='utf-8-sig', newline='') as file:
        rows = csv.reader(file, skipinitialspace=True)
        if next(rows, None) != ['class', 'superclass']:
            raise ValueError(
                f'{path}, line 1 must be the header "class,superclass".'
            )
        for row in rows:
            if not row:
                continue
            if len(row) != 2 or not all(row):
                raise ValueError(
                    f'{path}, line {rows.line_num} must be a class and its '
                    f'superclass, got {row}. Quote names that have a comma.'
                )
            name, parent = row
            if parents.setdefault(name, parent) != parent:
                raise ValueError(
                    f'{path}, line {rows.line_num}: the class {name!r} '
                    f'belongs to {parent!r}, further up to '
                    f'{parents[name]!r}.'
                )
    return parents


def _from_folder(
    folder: Path, classes: Sequence[str], level: int, ancestor: str | None
) -> list[str | None]:
    """Find the id of each class's superclass."""
    path = folder / 'class_hierarchy.txt'
    parents: dict[str, set[str]] = {}
    for parent, child in _pairs(path, ' '):
        parents.setdefault(parent, set())
        parents.setdefault(child, set()).add(parent)
    try:
        # parents before their children
        order = list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        raise ValueError(
            f'{path} has a cycle: {" - ".join(error.args[1])}.'
        ) from error
    nodes = _find_nodes(folder, classes, parents)
    _check_found(folder, classes, nodes)
    above: dict[str, set[str]] = {}
    for node in order:
        above[node] = {node}.union(*(above[up] for up in parents[node]))
    # only nodes above classes of the dataset count, also as roots
    used = set().union(*(above[node] for node in nodes if node is not None))
    roots = sorted(node for node in used if not parents[node])
    if len(roots) > 1:
        raise ValueError(
            f'{path} has several roots with classes of the dataset below: '
            f'{", ".join(roots)}. Depth is counted from a single one.'
        )
    depth: dict[str, int] = {}
    for node in order:
        if node in used:
            ups = (depth[up] for up in parents[node])
            depth[node] = 1 + min(ups, default=-1)
    superclasses = {node for node in used if depth[node] == level}
    if not superclasses:
        raise ValueError(
            f'level={level}: {path} has classes of the dataset at or below '
            f'depths 0 to {max(depth.values())} only.'
        )
    if ancestor is not None:
        if ancestor not in parents:
            raise ValueError(f'{path} has no node ancestor={ancestor!r}.')
        superclasses = {
            node for node in superclasses if ancestor in above[node] - {node}
        }
        if not superclasses:
            raise ValueError(
                f'{path} has no node with classes of the dataset at '
                f'level={level} below ancestor={ancestor!r}.'
            )
    found: list[str | None] = []
    for name, wnid in zip(classes, nodes, strict=True):
        own = sorted(superclasses & above[wnid]) if wnid is not None else []
        if len(own) > 1:
            raise ValueError(
                f'{path}: the class {name!r} ({wnid}) is below several nodes '
                f'at level={level}: {", ".join(own)}. Choose another level or '
                'an ancestor, or remove an edge.'
            )
        found.append(own[0] if own else None)
    return found


def _find_nodes(
    folder: Path, classes: Sequence[str], known: Container[str]
) -> list[str | None]:
    """Find the id of each class, which may be given by id or name."""
    path = folder / 'dataset_class_info.json'
    entries = _read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f'{path} must hold a list of [number, id, name].')
    by_name: dict[str, dict[int, str]] = {}
    numbers: dict[int, tuple[str, str]] = {}
    for place, entry in enumerate(entries):
        match entry:
            case [int(number), str(wnid), str(name)]:
                by_name.setdefault(name, {})[number] = wnid
                if numbers.setdefault(number, (wnid, name)) != (wnid, name):
                    raise ValueError(
                        f'{path}, entry {place}: class {number} is '
                        f'{(wnid, name)}, further up {numbers[number]}.'
                    )
            case _:
                raise ValueError(
                    f'{path}, entry {place} must be [number, id, name], got '
                    f'{entry!r}.'
                )
    nodes: list[str | None] = []
    for number, name in enumerate(classes):
        same = by_name.get(name, {})
        if name in known:
            nodes.append(name)
            continue
        if len(same) > 1 and number not in same:
            raise ValueError(
                f'The class {name!r}, number {number} of the dataset, may be '
                f'any of {", ".join(same.values())} in {path}. Name the '
                "dataset's classes by their ids."
            )
        found = same.get(number, next(iter(same.values()), None))
        nodes.append(found if found in known else None)
    return nodes


def _check_found(
    path: Path, classes: Sequence[str], found: Sequence[str | None]
) -> None:
    unknown = [
        name
        for name, entry in zip(classes, found, strict=True)
        if entry is None
    ]
    some = ', '.join(repr(name) for name in unknown[:5])
    if len(unknown) > 5:
        some += ', ...'
    if len(unknown) == len(classes):
        raise ValueError(
            f'{path} has none of the {len(classes)} classes of the dataset: '
            f'{some}. Use the same names.'
        )
    if unknown:
        warnings.warn(
            f'{path} lacks {len(unknown)} of the {len(classes)} classes of '
            f'the dataset, which then belong to no superclass: {some}.',
            stacklevel=4,
        )


def _read_json(path: Path) -> Any:
    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            # the parser would take the last one
            if found.setdefault(key, value) != value:
                raise ValueError(
                    f'{path} has the key {key!r} twice, with {found[key]!r} '
                    f'and with {value!r}. Keep the right one.'
                )
        return found

    try:
        return json.loads(
            path.read_text(encoding='utf-8'), object_pairs_hook=refuse_twice
        )
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is no JSON: {error}.') from error


def _pairs(path: Path, separator: str) -> Iterator[tuple[str, str]]:
    """Read a file of two fields a line."""
    with path.open(encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            first, _, second = line.strip().partition(separator)
            if not first or not second or separator in second:
                raise ValueError(
                    f'{path}, line {number} must be two fields with '
                    f'{separator!r} between them, got {line.rstrip()!r}.'
                )
            yield first, second
