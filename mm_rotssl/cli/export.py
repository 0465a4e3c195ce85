"""Write the backbone of a checkpoint for use in another library.

The file is loaded into the other library's network, and its features are
compared with those of the config's backbone, before it takes its place.
Checkpoints of mmpretrain and of mmselfsup do as well; the config is one of
mmpretrain or mm_rotssl with the same model.backbone.
"""

import argparse
from pathlib import Path

from mm_rotssl.converters.libraries import SOURCES, TARGETS

from .common import (
    add_checkpoint,
    add_config,
    ends_with_error,
    parse_cfg_options,
    positive,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        '--to',
        dest='target',
        choices=TARGETS,
        required=True,
        help='library to write for',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='file to write, .pth or .safetensors',
    )
    parser.add_argument(
        '--from',
        dest='source',
        choices=SOURCES,
        default=SOURCES[0],
        help='who named the weights: mm_rotssl (mmpretrain and mmselfsup, '
        'too) or torchvision, a bare ResNet (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        type=positive,
        default=64,
        help='side in pixels of the image on which features are compared '
        '(default: %(default)s)',
    )


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): See :func:`add_arguments`.
    """
    from mm_rotssl.apis import export

    done = export(
        args.config,
        args.checkpoint,
        args.target,
        args.out,
        args.source,
        args.size,
        parse_cfg_options(args.cfg_options),
    )
    compared = (
        'could not be compared, as detectron2 is not built here; the names '
        'converted back give the input'
        if args.target == 'detectron2'
        else f'differ by at most {done.difference:.1e} of the largest value'
    )
    print(f'tensors     {done.tensors} matched')
    print(f'features    {compared}')
    if done.preprocessor:
        settings = (f'{k}={v}' for k, v in done.preprocessor.items())
        print(f'images      {", ".join(settings)}')
    print(f'written     {args.out}\n\n{done.hint}')
