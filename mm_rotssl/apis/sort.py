"""Images sorted into the classes that a network found without labels."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.progress import track
from torch.utils.data import DataLoader

from mm_rotssl.datasets import BrokenImageError, image_keys
from mm_rotssl.utils import (
    algorithm_settings,
    list_written,
    write_file,
    write_image,
)
from mm_rotssl.visualization import contact_sheet, shown_image
from mm_rotssl.visualization.grids import GAP, THUMBNAIL

from .config import read_config
from .networks import build_ordered_dataloader, load_network
from .sources import folder_dataloader

COLUMNS = 12
# a JPEG has at most 65,500 rows
MAX_SHOWN = COLUMNS * (65_500 // (THUMBNAIL + GAP))
STYLE = """
body { font-family: sans-serif; margin: 2em auto; max-width: 1200px; }
img { max-width: 100%; }
h2 { font-size: 1.1em; margin: 1.5em 0 0.3em; }
small { color: #555; font-weight: normal; }
"""


class SortedImages(NamedTuple):
    """What :func:`sort_images` has written.

    Attributes:
        num_images (int): How many images could be read.
        num_classes (int): How many classes they are in.
        table (Path): The CSV file with image, class and confidence.
        page (Path): The HTML file that shows the classes.
    """

    num_images: int
    num_classes: int
    table: Path
    page: Path


def sort_images(
    config: str | Path,
    checkpoint: str | Path,
    images: str | Path | None = None,
    out: str | Path | None = None,
    max_shown: int = 36,
    device: str = 'cpu',
    cfg_options: dict | None = None,
) -> SortedImages:
    """Sort images into the classes that a network found without labels.

    For each image its class and the class's probability are written to
    ``classes.csv``; ``index.html`` shows the classes, the largest first, and
    of each the images that the network is surest of.

    Args:
        config (str | Path): The checkpoint's, see :func:`read_config`; its
            ``val_dataloader``, else ``test_dataloader``, tells how images are
            prepared.
        checkpoint (str | Path): The weights of a network that predicts
            classes.
        images (str | Path, optional): Folder of the images, searched with
            all its sub-folders; images in it that can't be read are passed
            over. Defaults to None, the images of that dataloader.
        out (str | Path, optional): Folder of the results. Defaults to None,
            ``classes`` beside the checkpoint.
        max_shown (int): Images a class on the page. Defaults to 36.
        device (str): Where the network runs. Defaults to 'cpu'.
        cfg_options (dict, optional): Replace settings of the config. Defaults
            to None.

    Returns:
        SortedImages: What was found, and the files.

    Raises:
        FileNotFoundError: If there is no such folder or checkpoint.
        BrokenImageError: If an image of the config's dataset can't be read.
        ValueError: If the config does not tell how to prepare images or does
            not fit the checkpoint, the network predicts no classes, or
            ``max_shown`` is out of range.
    """
    if not 1 <= max_shown <= MAX_SHOWN:
        raise ValueError(
            f'max_shown={max_shown} must be from 1 to {MAX_SHOWN}.'
        )
    out = Path(checkpoint).parent / 'classes' if out is None else Path(out)
    cfg = read_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    loader = _build_loader(cfg, images)
    model = load_network(cfg, checkpoint).to(device).eval()
    keys = image_keys(loader.dataset)
    try:
        found = _classify(model, loader)
    except BrokenImageError as error:
        raise BrokenImageError(
            f'{error}\nRepair or remove the file, or name the folder with '
            '--images, where such files are passed over.'
        ) from error

    table = io.StringIO()
    writer = csv.writer(table, lineterminator='\n')
    writer.writerow(('image', 'class', 'confidence'))
    for number, label, confidence in zip(*found, strict=True):
        writer.writerow((keys[number], label, f'{confidence:.4f}'))
    write_file(
        out / 'classes.csv',
        table.getvalue().encode(errors='surrogateescape'),
    )
    count = _write_page(out, loader.dataset, cfg, found, max_shown)
    return SortedImages(
        len(found[0]), count, out / 'classes.csv', out / 'index.html'
    )


def _build_loader(cfg: Config, folder: str | Path | None) -> DataLoader:
    key = 'val_dataloader' if cfg.get('val_dataloader') else 'test_dataloader'
    settings = cfg.get(key)
    if not settings:
        raise ValueError(
            'The config has neither val_dataloader nor test_dataloader, which '
            'tell how images are prepared. Add one.'
        )
    if folder is not None:
        settings = folder_dataloader(cfg, folder)
    return build_ordered_dataloader(settings)


@torch.no_grad()
def _classify(
    model: Any, loader: DataLoader
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image's number, class and probability, of all that can be read."""
    found: dict[int, tuple[int, float]] = {}
    for batch in track(loader, 'classifying'):
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


def _sheet(images: list[np.ndarray]) -> bytes:
    """Rows of thumbnails, JPEG; the images are RGB, uint8 (H, W, 3)."""
    sheet = contact_sheet(images, COLUMNS)
    _, data = cv2.imencode('.jpg', sheet[..., ::-1])
    return bytes(data)


def _write_page(
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
        write_image(
            out / name,
            _sheet(
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
    # of an earlier run, not an image of the same name
    for path in out.glob(f'class_{5 * "[0-9]"}.jpg'):
        if path.name in list_written(out) - names:
            path.unlink()
    return len(classes)
