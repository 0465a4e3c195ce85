import argparse
import sys
from importlib import import_module

from mm_rotssl.version import __version__

COMMANDS = (
    'train',
    'test',
    'evaluate',
    'embed',
    'evaluate-clusters',
    'evaluate-svm',
    'compare-transfer',
    'export',
    'sort',
    'check-images',
    'mine-neighbors',
    'sample-patches',
    'estimate-noise',
    'digit-scenes',
    'convert-mmselfsup',
    'configs',
)


def main(command: str | None = None) -> None:
    """Run a command with the arguments of the process.

    Args:
        command (str, optional): Its name, one of :data:`COMMANDS`, where a
            script in ``tools/`` stands for it. Defaults to None: the first
            argument names it.

    Raises:
        SystemExit: If the arguments are wrong or the command fails.
    """
    parser = argparse.ArgumentParser(
        prog='mm-rotssl',
        description='Self-supervised learning for the OpenMMLab ecosystem.',
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for name in COMMANDS:
        module = import_module(f'mm_rotssl.cli.{name.replace("-", "_")}')
        description = module.__doc__ or ''
        child = commands.add_parser(
            name,
            help=description.partition('\n')[0].rstrip('.'),
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(run=module.run)
    arguments = sys.argv[1:]
    if command is not None:
        arguments.insert(0, command)
    args = parser.parse_args(arguments)
    args.run(args)
