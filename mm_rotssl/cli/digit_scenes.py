"""Write scenes of real digits, to try detection and segmentation with.

Nothing is downloaded: the digits are those of mm_rotssl.Digits. The same
images are laid out twice, as COCO (OUT/coco) and PASCAL VOC
(OUT/VOCdevkit/VOC2012) lay out theirs. Scenes of training and of validation
hold digits of different images. OUT/unlabeled has images of single
digits, drawn in the same way from those of training.
"""

import argparse
from pathlib import Path

from .common import add_seed, ends_with_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument('out', type=Path, help='folder, new or empty')
    for name, default, what in (
        ('train', 200, 'number of scenes for training'),
        ('val', 100, 'number of scenes for validation'),
        ('size', 96, 'side of the images in pixels'),
        ('unlabeled', 0, 'number of images of one digit, to pre-train on'),
    ):
        parser.add_argument(
            f'--{name}',
            type=int,
            default=default,
            help=f'{what} (default: %(default)s)',
        )
    add_seed(parser, 'the scenes; the same gives the same files')
    parser.add_argument(
        '--preview',
        type=Path,
        metavar='FILE.png',
        help='draw some scenes of training, plain and with boxes, masks and '
        'labels',
    )


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): See :func:`add_arguments`.
    """
    from mm_rotssl.apis import write_digit_scenes

    try:
        digits = write_digit_scenes(
            args.out,
            args.train,
            args.val,
            args.size,
            args.seed,
            args.unlabeled,
            args.preview,
        )
    except ImportError as error:
        # pycocotools
        raise SystemExit(f'Error: {error}') from error
    for split, count in (('train', args.train), ('val', args.val)):
        print(f'{split}: {count} scenes of {digits[split]} digits')
    print(args.out / 'coco')
    print(args.out / 'VOCdevkit')
    if args.unlabeled:
        print(args.out / 'unlabeled')
    if args.preview is not None:
        print(args.preview)
