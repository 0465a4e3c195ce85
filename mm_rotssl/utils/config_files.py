import difflib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def config_folder() -> Path:
    """Find the folder of the shipped configs.

    Returns:
        Path: ``configs`` of the checkout that the package is imported from,
        else the copy inside the installed package.
    """
    checkout = PACKAGE.parent
    # a folder of that name in site-packages is somebody else's
    if (checkout / 'model-index.yml').is_file():
        return checkout / 'configs'
    return PACKAGE / '.mim' / 'configs'


def list_configs(contained: str = '') -> dict[str, list[Path]]:
    """List the shipped configs.

    Args:
        contained (str): Part of the names, in capitals or not. Defaults to
            '', all.

    Returns:
        dict[str, list[Path]]: Name -> files of this name, in the order of
        the names. Those in ``_base_``, which only others build on, are left
        out.
    """
    found: dict[str, list[Path]] = {}
    folder = config_folder()
    for path in folder.rglob('*.py'):
        if (
            '_base_' not in path.relative_to(folder).parts
            and contained.lower() in path.stem.lower()
        ):
            found.setdefault(path.stem, []).append(path)
    return {name: sorted(found[name]) for name in sorted(found)}


def find_config(config: str | Path) -> Path:
    """Find a config by its file or, if it is a shipped one, by its name.

    Args:
        config (str | Path): The file, which has precedence, or the name, with
            or without ``.py``.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If several files have the name.
    """
    path = Path(config)
    if path.is_file():
        return path
    known = list_configs()
    name = path.name.removesuffix('.py')
    # what names a folder is meant as a file
    files = known.get(name, []) if path.name == str(path) else []
    if len(files) > 1:
        raise ValueError(
            f'The name "{config}" is that of {len(files)} configs. Give the '
            f'file: {", ".join(map(str, files))}'
        )
    if not files:
        near = difflib.get_close_matches(name, known)
        raise FileNotFoundError(
            f'The config file "{config}" does not exist (looked from '
            f'"{Path.cwd()}"), and no shipped config has this name. '
            + (f'Did you mean {" or ".join(near)}? ' if near else '')
            + 'All names are listed by: mm-rotssl configs'
        )
    return files[0]


def config_summary(path: str | Path) -> str:
    """Read what a config says of itself.

    Args:
        path (str | Path): The file.

    Returns:
        str: The first sentence of the comment at its top; '' if there is
        none.
    """
    words: list[str] = []
    with open(path, encoding='utf-8') as file:
        for line in file:
            if not line.startswith('#'):
                break
            words += line.lstrip('#').split()
    for count, word in enumerate(words, 1):
        if word.endswith('.'):
            return ' '.join(words[:count])
    return ' '.join(words)
