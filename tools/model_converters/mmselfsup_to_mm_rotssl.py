"""Convert a RotationPred of mmselfsup to a RotNet."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config

from mm_rotssl.converters.mmselfsup import (
    LABELS,
    convert_checkpoint,
    convert_config,
)
from mm_rotssl.utils import read_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path, help='file of mmselfsup')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument(
        '--config',
        action='store_true',
        help='the files are configs (of mmselfsup 1.x), not checkpoints',
    )
    parser.add_argument(
        '--from-version',
        choices=list(LABELS),
        help='the mmselfsup that made the checkpoint, if it does not say',
    )
    return parser.parse_args()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path to write to that takes the target's place when done."""
    part = target.with_name(f'.{target.stem}.part{target.suffix}')
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def main() -> None:
    args = parse_args()
    if args.source.resolve() == args.target.resolve():
        raise SystemExit(
            f'"{args.target}" is the input; name another file to write.'
        )
    try:
        if args.config:
            # its custom_imports would need mmselfsup
            cfg, remarks = convert_config(
                Config.fromfile(args.source, import_custom_modules=False)
            )
            with replacing(args.target) as part:
                cfg.dump(part)
            for remark in remarks:
                print(remark)
        else:
            checkpoint = convert_checkpoint(
                read_checkpoint(args.source), args.from_version
            )
            with replacing(args.target) as part:
                torch.save(checkpoint, part)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{args.source}: {error}') from error
    print(f'Written: {args.target}')


if __name__ == '__main__':
    main()
