"""Look for broken and unusual images in a folder.

Each broken image is named with the reason: cut off, damaged inside, too many
pixels, no image. What else there is to know, such as 12 bits in 16, is told
with the number of images. Ends with status 1 if an image is broken.
"""

import argparse
from pathlib import Path

from .common import ends_with_error, make_console, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what the command takes.

    Args:
        parser (ArgumentParser): Of the command.
    """
    parser.add_argument(
        'folder', help='folder of the images, searched with all sub-folders'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='write the good ones to this list, for ann_file of the dataset',
    )
    parser.add_argument(
        '--max-pixels',
        type=positive,
        default=2**28,
        help='width times height of the largest image (default: %(default)s)',
    )
    parser.add_argument(
        '--num-workers',
        type=positive,
        default=4,
        help='processes that read (default: %(default)s)',
    )


@ends_with_error
def run(args: argparse.Namespace) -> None:
    """Run the command.

    Args:
        args (Namespace): See :func:`add_arguments`.

    Raises:
        SystemExit: If an image is broken.
    """
    from mm_rotssl.apis import check_images

    found = check_images(
        args.folder, args.out, args.max_pixels, args.num_workers
    )
    console = make_console()

    def show(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    for path, reason in found.broken.items():
        show(f'broken  {path}: {reason}')
    for note, paths in found.notes.items():
        show(f'note    {len(paths)} images, such as {paths[0]}: {note}')
    show(f'{len(found.good)} good, {len(found.broken)} broken')
    if args.out:
        show(f'list    {args.out}')
    if found.broken:
        raise SystemExit(1)
