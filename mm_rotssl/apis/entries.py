"""What an evaluation compares: checkpoints, alone or as seeds of a run."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mm_rotssl.utils import InputError, newest_checkpoint

SUFFIXES = ('.pth', '.pt', '.safetensors')


@dataclass(frozen=True)
class Run:
    """A checkpoint, and the config that it was made with.

    Args:
        config (str): See :func:`read_network`.
        checkpoint (str, optional): The file. Defaults to None, the weights
            that the library of ``config`` distributes.
    """

    config: str
    checkpoint: str | None = None


@dataclass(frozen=True)
class Entry:
    """A row of a comparison.

    Args:
        name (str): In tables and figures.
        runs (tuple[Run, ...]): Several differ in the random seed only.
    """

    name: str
    runs: tuple[Run, ...]


def find_entry(text: str | Path, config: str | Path | None = None) -> Entry:
    """Find the checkpoints that a word of the command line names.

    Args:
        text (str | Path): One of

            - the folder of a run: its newest checkpoint;
            - a folder of such folders: runs that differ in their seeds;
            - a checkpoint, beside which a run has left its config;
            - CONFIG@CHECKPOINT, where both lie somewhere, or CONFIG@FOLDER
              with one of these folders;
            - timm:NAME or torchvision:NAME, perhaps with @CHECKPOINT.

            Before it there may be a name for tables, NAME=.
        config (str | Path, optional): Instead of the one that is found.
            Defaults to None.

    Returns:
        Entry: Named as asked for, else by the folder or file.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a folder has no checkpoint, or no config is found.
    """
    text = str(text)
    name = ''
    # a path may have this sign in it, too
    if '=' in text and not Path(text).exists():
        name, _, text = text.partition('=')
    given, at, checkpoint = text.rpartition('@')
    if at and not Path(text).exists():
        if Path(checkpoint).is_dir():
            found = find_entry(checkpoint, given)
            return Entry(name or found.name, found.runs)
        return Entry(name or Path(checkpoint).stem, (Run(given, checkpoint),))
    if text.startswith(('timm:', 'torchvision:')):
        return Entry(name or text, (Run(text),))
    path = Path(text)
    if path.is_file():
        return Entry(name or path.stem, (_run(path, config),))
    if not path.is_dir():
        raise FileNotFoundError(
            f'There is no checkpoint or folder of a run "{text}" (looked '
            f'from "{Path.cwd()}").'
        )
    folders = [path] if _has_checkpoints(path) else sorted(path.iterdir())
    runs = []
    for folder in folders:
        if folder.is_dir() and _has_checkpoints(folder):
            newest = newest_checkpoint(folder)
            if newest is not None:
                runs.append(_run(Path(newest), config))
    if not runs:
        raise InputError(
            f'"{text}" has no whole checkpoint (*.pth), nor has a folder in '
            'it.'
        )
    return Entry(name or path.resolve().name, tuple(runs))


def name_entries(entries: Iterable[Entry]) -> list[Entry]:
    """Make the names of entries different.

    Args:
        entries (Iterable[Entry]): In the order of the tables.

    Returns:
        list[Entry]: The same; of those with one name the second is called
        NAME (2), and so on.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        name, count = entry.name, 1
        while name in found:
            count += 1
            name = f'{entry.name} ({count})'
        found[name] = Entry(name, entry.runs)
    return list(found.values())


def _has_checkpoints(folder: Path) -> bool:
    return any(folder.glob('*.pth'))


def _run(checkpoint: Path, config: str | Path | None) -> Run:
    if config is not None:
        return Run(str(config), str(checkpoint))
    # the engine writes it into the folder of the run, and beside each log
    found = sorted(checkpoint.parent.glob('*.py'))
    if len(found) != 1:
        found = sorted(checkpoint.parent.glob('*/vis_data/config.py'))[-1:]
    if not found:
        raise InputError(
            f'No config was found beside "{checkpoint}". Name it: '
            f'CONFIG@{checkpoint}.'
        )
    return Run(str(found[0]), str(checkpoint))
