"""What commands have in common: options, the console, the end with an error.

Nothing heavy is imported at the top, see :mod:`mm_rotssl.cli`.
"""

import argparse
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

_P = ParamSpec('_P')
_T = TypeVar('_T')

# Last parts of a config's keys whose values are files or folders. What is
# below data_prefix has names of the dataset's own.
PATH_KEYS = frozenset(
    (
        'ann_file',
        'checkpoint',
        'data_prefix',
        'data_root',
        'file',
        'load_from',
        'out_dir',
        'path',
        'seed_patches',
        'sub_data_root',
        'work_dir',
    )
)
# Not in str.isspace(), nor is it likely to be typed.
_BLANK = '\N{SYMBOL FOR SPACE}'


def positive(text: str) -> int:
    """Read a positive whole number.

    Args:
        text (str): Of the command line.

    Returns:
        int: The number.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f'{text} must be a positive number')


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config, by file or by name, and changes of its settings.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        'config', help='config file, or the name of a shipped config'
    )
    add_cfg_options(parser)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument('checkpoint', help='checkpoint file')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add changes of the config's settings.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='replace settings of the config, with dots for nested keys; '
        'lists as key="[a,b]" or key=a,b; paths as they are',
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add how the processes were started.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started (default: none)',
    )
    # passed on by torch.distributed.launch
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=lambda text: os.environ.setdefault('LOCAL_RANK', text),
        help=argparse.SUPPRESS,
    )


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the random seed.

    Args:
        parser (ArgumentParser): Of the command.
        what (str): What it determines.
    """
    parser.add_argument(
        '--seed', type=int, default=0, help=f'of {what} (default: 0)'
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add where networks run.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        '--device',
        help='where the networks run (default: cuda if there is one)',
    )


def default_device() -> str:
    """Where networks run if nothing is said.

    Returns:
        str: 'cuda' if there is one, else 'cpu'.
    """
    import torch

    return 'cuda' if torch.cuda.is_available() else 'cpu'


def parse_cfg_options(words: Sequence[str]) -> dict[str, Any]:
    """Read changes of settings.

    Values are understood as by mmengine's scripts, but for two things:
    spaces within a value stay, and a path is taken as it was typed, be it
    ``a,b`` or ``123``. A path is the value of a key that names files
    (:data:`PATH_KEYS`), and any value with a slash or a backslash that is no
    list in brackets.

    Args:
        words (Sequence[str]): 'key=value' each.

    Returns:
        dict[str, Any]: Dotted key -> value.

    Raises:
        SystemExit: If a word is no such pair, or brackets are left open.
    """
    from mmengine.config import DictAction

    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition('=')
        if not (key and equals):
            raise SystemExit(
                f'Error: --cfg-options {word}: expected KEY=VALUE.'
            )
        if _is_path(key, value):
            options[key] = None if value == 'None' else value
            continue
        # mmengine drops all blanks, but knows this one as a letter
        value = re.sub(r'\s*([\[\](),])\s*', r'\1', value).strip()
        value = value.replace(' ', _BLANK)
        try:
            options[key] = _with_blanks(DictAction._parse_iterable(value))
        except AssertionError as error:
            raise SystemExit(
                f'Error: --cfg-options {word}: a bracket is left open.'
            ) from error
    return options


def _is_path(key: str, value: str) -> bool:
    *above, last = key.split('.')
    return (
        last in PATH_KEYS
        or above[-1:] == ['data_prefix']
        or (
            bool(re.search(r'[/\\]', value))
            and not re.match(r'[\s"\']*[\[(]', value)
        )
    )


def _with_blanks(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_BLANK, ' ')
    if isinstance(value, (list, tuple)):
        return type(value)(map(_with_blanks, value))
    return value


def make_console() -> 'Console':
    """Make the console that commands print to.

    Returns:
        Console: Where the output is a file or a pipe, which have no width,
        nothing is wrapped or cut.
    """
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=500)


@contextmanager
def show_progress(console: 'Console') -> Iterator[Callable[[str], None]]:
    """Tell what is being done.

    Args:
        console (Console): Where to.

    Yields:
        Callable: Takes a message. On a terminal it takes the place of the
        one before, elsewhere each is a line.
    """
    if console.is_terminal:
        with console.status('') as status:
            yield status.update
    else:
        yield lambda message: console.print(message, highlight=False)


def ends_with_error(run: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a command end with one line where its input is wrong.

    Args:
        run (Callable): Takes the arguments.

    Returns:
        Callable: The same; a ValueError, RuntimeError or OSError becomes a
        SystemExit with the message.
    """

    @wraps(run)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return run(*args, **kwargs)
        except (ValueError, RuntimeError, OSError) as error:
            raise SystemExit(f'Error: {error_message(error)}') from error

    return wrapper


def error_message(error: Exception) -> str:
    """Read what an error says.

    Args:
        error (Exception): Perhaps one that PyTorch brings from a process of
            a dataloader, with the traceback there in front of the message.

    Returns:
        str: The message alone.
    """
    name = type(error).__name__
    return re.sub(
        rf'\ACaught {name} in DataLoader worker .*^[\w.]*{name}: ',
        '',
        str(error),
        flags=re.DOTALL | re.MULTILINE,
    ).rstrip('\n')
