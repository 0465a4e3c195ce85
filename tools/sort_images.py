"""Sort images into the classes that a network found without labels.

For each image of val_dataloader of the config, or of a folder, the class and
its probability are written to classes.csv; index.html shows the classes, the
largest first, and of each the images that the network is surest of.
"""

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.utils.data import DataLoader

from mm_rotssl.apis import (
    algorithm_settings,
    build_ordered_dataloader,
    load_network,
    read_config,
)
from mm_rotssl.datasets import BrokenImageError, image_keys
from mm_rotssl.utils import write_file
from mm_rotssl.visualization import shown_image

THUMBNAIL = 96
GAP = 4
COLUMNS = 12
# a JPEG has at most 65,500 rows
MAX_SHOWN = COLUMNS * (65_500 // (THUMBNAIL + GAP))
STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 1200px; }
img { max-width: 100%; }
h2 { font-size: 1.1em; margin: 1.5em 0 0.3em; }
small { color: #555; font-weight: normal; }
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config the checkpoint was made with')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--images',
        help='folder of the images, searched with all its sub-folders; '
        'they are prepared as those of val_dataloader, whose dataset they '
        'replace',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='folder of the results; by default "classes" beside the '
        'checkpoint',
    )
    parser.add_argument(
        '--max-shown',
        type=int,
        default=3 * COLUMNS,
        help='images a class on the page (default: %(default)s)',
    )
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where the network runs (default: cuda if there is one)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='replace settings of the config: key=value, with dots for '
        'nested keys',
    )
    args = parser.parse_args()
    if not 1 <= args.max_shown <= MAX_SHOWN:
        parser.error(
            f'--max-shown {args.max_shown} must be from 1 to {MAX_SHOWN}'
        )
    return args


def build_loader(cfg: Config, folder: str | None) -> DataLoader:
    settings = cfg.get('val_dataloader')
    if not settings:
        raise ValueError(
            'The config has no val_dataloader, which tells how images are '
            'prepared. Add one.'
        )
    if folder is not None:
        pipeline = settings.dataset.get('pipeline') or []
        if not any('Load' in str(step['type']) for step in pipeline):
            raise ValueError(
                'val_dataloader.dataset.pipeline loads no files, as the '
                'images of its dataset are in memory: --images needs '
                "dict(type='mm_rotssl.LoadIntactImage') in it, and what "
                'makes images equally large.'
            )
        settings.dataset = dict(
            type='mm_rotssl.ImageFolder',
            data_root=folder,
            # each is named in a warning
            max_broken=sys.maxsize,
            pipeline=pipeline,
        )
    return build_ordered_dataloader(settings)


@torch.no_grad()
def classify(
    model: nn.Module, loader: DataLoader, console: Console
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image's number, class and probability, of all that can be read."""
    found: dict[int, tuple[int, float]] = {}
    for batch in track(loader, 'classifying', console=console):
        for sample in model.val_step(batch):
            if 'pred_score' not in sample:
                raise ValueError(
                    f'{type(model).__name__} gives no classes. Take a config '
                    'of mm_rotssl.SelfClassifier, or another model whose '
                    'predictions have a pred_score.'
                )
            label = int(sample.pred_score.argmax())
            # in place of a file that can't be read another one comes again
            found[int(sample.sample_idx)] = (
                label,
                float(sample.pred_score[label]),
            )
    numbers = sorted(found)
    labels, confidences = zip(*map(found.get, numbers), strict=True)
    return np.array(numbers), np.array(labels), np.array(confidences)


def sheet(images: list[np.ndarray]) -> bytes:
    """Rows of thumbnails, JPEG."""
    rows = -(-len(images) // COLUMNS)
    across = min(len(images), COLUMNS)
    side = THUMBNAIL + GAP
    canvas = np.full((rows * side, across * side, 3), 255, np.uint8)
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        scale = THUMBNAIL / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        # small images keep their pixels
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        small = cv2.resize(image, size, interpolation=way)
        # in the middle of its cell
        top = i // COLUMNS * side + (THUMBNAIL - size[1]) // 2
        left = i % COLUMNS * side + (THUMBNAIL - size[0]) // 2
        canvas[top : top + size[1], left : left + size[0]] = small
    _, data = cv2.imencode('.jpg', canvas[..., ::-1])
    return bytes(data)


def write_page(
    out: Path,
    dataset: Any,
    cfg: Config,
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
    max_shown: int,
) -> int:
    """Write index.html and a sheet a class; return the number of classes."""
    numbers, labels, confidences = found
    classes, counts = np.unique(labels, return_counts=True)
    preprocessor = algorithm_settings(cfg).get('data_preprocessor')
    sections = []
    names = set()
    for place in np.lexsort((classes, -counts)):
        label, count = classes[place], counts[place]
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(-confidences[members], kind='stable')]
        mean = confidences[members].mean()
        name = f'class_{label:05d}.jpg'
        names.add(name)
        write_file(
            out / name,
            sheet(
                [
                    shown_image(dataset, int(numbers[i]), preprocessor)
                    for i in members[:max_shown]
                ]
            ),
        )
        sections.append(
            f'<h2>Class {label} <small>{count} images, '
            f'{100 * count / len(labels):.1f} % of all, mean confidence '
            f'{mean:.2f}</small></h2>\n'
            f'<img src="{name}" loading="lazy" '
            f'alt="surest images of class {label}">'
        )
    title = f'{len(classes)} classes of {len(labels)} images'
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<title>{title}</title><style>{STYLE}</style></head><body>\n'
        f'<h1>{title}</h1>\n<p>The largest class first; in each the images '
        'that the network is surest of. All images: '
        '<a href="classes.csv">classes.csv</a>.</p>\n'
        + '\n'.join(sections)
        + '\n</body></html>\n'
    )
    write_file(out / 'index.html', page.encode())
    # of an earlier run
    for path in out.glob(f'class_{5 * "[0-9]"}.jpg'):
        if path.name not in names:
            path.unlink()
    return len(classes)


def sort(args: argparse.Namespace, console: Console) -> None:
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    loader = build_loader(cfg, args.images)
    model = load_network(cfg, args.checkpoint).to(args.device).eval()
    keys = image_keys(loader.dataset)
    found = classify(model, loader, console)

    table = io.StringIO()
    writer = csv.writer(table, lineterminator='\n')
    writer.writerow(('image', 'class', 'confidence'))
    for number, label, confidence in zip(*found, strict=True):
        writer.writerow((keys[number], label, f'{confidence:.4f}'))
    write_file(
        args.out / 'classes.csv',
        table.getvalue().encode(errors='surrogateescape'),
    )
    count = write_page(args.out, loader.dataset, cfg, found, args.max_shown)
    console.print(
        f'{len(found[0])} images in {count} classes\n'
        f'table   {args.out / "classes.csv"}\n'
        f'page    {args.out / "index.html"}',
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def main() -> None:
    args = parse_args()
    if args.out is None:
        args.out = Path(args.checkpoint).parent / 'classes'
    try:
        sort(args, Console())
    except BrokenImageError as error:
        raise SystemExit(
            f'Error: {error}\nRepair or remove the file, or name the folder '
            'with --images, where such files are passed over.'
        ) from error
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error


if __name__ == '__main__':
    main()
