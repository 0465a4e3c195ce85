r"""Fine-tune a detector or segmenter from several initializations.

CONFIG is one of mmdet or mmseg whose backbone has
init_cfg=dict(type='Pretrained', ...). For every initialization and every seed
it is trained with another file in that place, or none:

    mm-rotssl compare-transfer CONFIG --out DIR --init random \
        rotnet=backbone.pth supervised=torchvision://resnet50

"random" starts from the config's random weights; NAME=FILE from a file that
mm-rotssl export wrote, or from any URL that mmengine loads, such as weights of
torchvision, trained with labels. A file's name may hold {seed}, for weights
that were pre-trained several times.

Every start is treated alike: stages and normalizations that the config
freezes are trained, which it says, and weights that would not arrive are
refused before anything is trained.

What is there already is not done again, so that an interrupted comparison
goes on. DIR receives the work directory of each run, results.json,
curves.png (losses and validation) and predictions.png (of the first seed).
"""

import argparse
from pathlib import Path

from .common import (
    add_config,
    ends_with_error,
    make_console,
    parse_cfg_options,
    positive,
)


def parse_inits(words: list[str]) -> dict[str, str | None]:
    """Read the initializations.

    Args:
        words (list[str]): 'NAME=FILE' each, or 'random'.

    Returns:
        dict[str, str | None]: Name -> file, or None for random weights.

    Raises:
        ValueError: If one is neither, or a name is there twice.
    """
    inits: dict[str, str | None] = {}
    for word in words:
        name, separator, file = word.partition('=')
        if not name or (name == 'random') == bool(separator):
            raise ValueError(
                f'--init {word}: NAME=FILE, or "random" without a file.'
            )
        if name in inits:
            raise ValueError(f'--init: there are two named "{name}".')
        inits[name] = file if separator else None
    return inits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes."""
    add_config(parser)
    parser.add_argument(
        '--init',
        nargs='+',
        required=True,
        metavar='NAME[=FILE]',
        help='what to start from: "random", or a name and the file or URL of '
        'weights, e.g. supervised=torchvision://resnet50; at most four',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='one run each (default: 0 1 2)',
    )
    parser.add_argument(
        '--jobs',
        type=positive,
        default=1,
        help='runs at a time, which share the cores (default: 1)',
    )
    parser.add_argument(
        '--crop-size',
        type=positive,
        metavar='PIXELS',
        help="side of a segmenter's crops, with all that depends on it "
        '(default: that of the config)',
    )
    parser.add_argument(
        '--images',
        type=positive,
        default=4,
        help='validation images to draw predictions of (default: 4)',
    )


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Compare and print."""
    inits = parse_inits(args.init)
    from mm_rotssl.apis import compare_transfer, transfer_table

    console = make_console()
    summary = compare_transfer(
        args.config,
        inits,
        args.out,
        seeds=args.seeds,
        jobs=args.jobs,
        images=args.images,
        cfg_options=parse_cfg_options(args.cfg_options),
        crop_size=args.crop_size,
        report=lambda message: console.print(message, highlight=False),
    )
    console.print(transfer_table(summary))
    for name in ('results.json', *summary['figures']):
        console.print(str(args.out / name), highlight=False, soft_wrap=True)
