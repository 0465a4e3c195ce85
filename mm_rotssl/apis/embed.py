"""Features of images for other programs."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.registry import init_default_scope

from mm_rotssl.datasets import image_keys
from mm_rotssl.evaluation.feature_store import FeatureStore
from mm_rotssl.utils import InputError, replacing, write_arrays

from .entries import find_entry
from .networks import build_ordered_dataloader, load_network, read_network
from .sources import image_settings

FORMATS = ('.npz', '.csv', '.parquet')
# converted at once
CHUNK_ROWS = 4096


class Embeddings(NamedTuple):
    """What was written.

    Args:
        images (int): Number of images.
        channels (int): Length of a vector.
        stage (str): Name of the stage.
        stages (tuple[str, ...]): Names of all.
    """

    images: int
    channels: int
    stage: str
    stages: tuple[str, ...]


def embed(
    source: str | Path,
    out: str | Path,
    checkpoint: str | Path | None = None,
    *,
    images: str | Path | None = None,
    stage: str | None = None,
    cache: str | Path | None = None,
    device: str = 'cpu',
    cfg_options: dict | None = None,
    report: Callable[[str], None] = print,
) -> Embeddings:
    """Write a vector of every image to a file.

    Args:
        source (str | Path): Config, run or network, see :func:`find_entry`.
        out (str | Path): The file; its ending tells the format. Of '.npz':
            ``features`` float32 (N, C), ``images``, the paths, and
            ``labels``, int64, where there are labels. Of '.csv' and
            '.parquet' (needs pyarrow): columns ``image``, ``label`` where
            there are labels, and ``f0``, ``f1``, ...
        checkpoint (str | Path, optional): The weights, if ``source`` is a
            config. Defaults to None.
        images (str | Path, optional): Folder or list of the images. Defaults
            to None, see `image_settings`.
        stage (str, optional): Name of the stage, or 'embedding', where the
            algorithm projects features to one. Defaults to None, the last
            stage of the backbone.
        cache (str | Path, optional): Folder that features are kept in.
            Defaults to None, a temporary one.
        device (str): Where the network runs. Defaults to 'cpu'.
        cfg_options (dict, optional): Dotted key -> value, settings of the
            config to replace. Defaults to None.
        report (Callable): Is told what is being done. Defaults to ``print``.

    Returns:
        Embeddings: What was written.

    Raises:
        FileNotFoundError: If the checkpoint or folder does not exist.
        ValueError: If the ending or the stage is not known, the checkpoint
            does not fit, or no image can be read.
    """
    out = Path(out)
    if out.suffix not in FORMATS:
        raise InputError(
            f'--out {out}: must end in {", ".join(FORMATS[:-1])} or '
            f'{FORMATS[-1]}.'
        )
    if out.suffix == '.parquet':
        _import_pyarrow(out)
    entry = (
        find_entry(source)
        if checkpoint is None
        else find_entry(checkpoint, source)
    )
    run = entry.runs[0]
    cfg = read_network(run.config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model: Any = load_network(cfg, run.checkpoint).to(device)
    loader = build_ordered_dataloader(image_settings(cfg, images))
    found = FeatureStore(cache).extract(model, loader, report=report)
    names = tuple(found.stages)
    stage = stage or [name for name in names if name.isdecimal()][-1]
    if stage not in found.stages:
        raise InputError(
            f'--stage {stage}: the stages are {", ".join(names)}.'
        )
    features = found.stages[stage]
    keys = image_keys(loader.dataset)
    paths = [keys[i] for i in found.index.tolist()]
    write_embeddings(out, features, paths, found.labels)
    return Embeddings(len(features), features.size(1), stage, names)


def _import_pyarrow(out: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f'--out {out} needs the package pyarrow: pip install pyarrow; or '
            'take .npz or .csv.'
        ) from error
    return pyarrow


def write_embeddings(
    out: Path,
    features: torch.Tensor,
    paths: Sequence[str],
    labels: torch.Tensor | None,
) -> None:
    """Write vectors with the names of their images, see :func:`embed`.

    Args:
        out (Path): The file; its ending tells the format.
        features (Tensor): A row an image, float32 (N, C); perhaps mapped
            from the disk, and then not read into memory at once.
        paths (Sequence[str]): Of the N images.
        labels (Tensor, optional): Their classes, int64 (N,).

    Raises:
        OSError: If the file can't be written; there is none then.
    """
    named: dict[str, Any] = dict(image=np.array(paths, dtype=np.str_))
    if labels is not None:
        named['label'] = labels.numpy()
    if out.suffix == '.npz':
        write_arrays(
            out,
            features=features.numpy(),
            images=named['image'],
            **({} if labels is None else dict(labels=named['label'])),
        )
        return
    columns = [*named, *(f'f{i}' for i in range(features.size(1)))]
    parts = [
        range(start, min(start + CHUNK_ROWS, len(features)))
        for start in range(0, len(features), CHUNK_ROWS)
    ]
    with replacing(out) as temporary:
        if out.suffix == '.parquet':
            pyarrow = _import_pyarrow(out)
            writer = None
            for part in parts:
                rows = features[part.start : part.stop].numpy()
                table = pyarrow.table(
                    [
                        *(v[part.start : part.stop] for v in named.values()),
                        *rows.T.copy(),
                    ],
                    names=columns,
                )
                if writer is None:
                    writer = pyarrow.parquet.ParquetWriter(
                        temporary, table.schema
                    )
                writer.write_table(table)
            assert writer is not None
            writer.close()
            return
        with open(
            temporary,
            'w',
            newline='',
            encoding='utf-8',
            errors='surrogateescape',
        ) as file:
            text = csv.writer(file, lineterminator='\n')
            text.writerow(columns)
            for *values, vector in zip(*named.values(), features, strict=True):
                # the shortest text that is read as the same float32
                text.writerow([*values, *map(str, vector.numpy())])
