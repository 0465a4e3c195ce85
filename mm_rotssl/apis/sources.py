"""Where the images of an evaluation come from."""

import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mm_rotssl.utils import InputError

from .shortcuts import training_size

# how images are prepared is read off the first of them that there is
PREPARED_AS = ('val_dataloader', 'test_dataloader')


def folder_dataloader(
    cfg: Config, source: str | Path, with_label: bool = False
) -> dict[str, Any]:
    """Describe a dataloader of images in a folder or of a list.

    They are prepared as those of the config's ``val_dataloader``, else of
    its ``test_dataloader``. Where these are in memory, images of files are
    first scaled to the size of the training images and cropped. Where there
    is neither, as in mmpretrain's configs of self-supervised algorithms, the
    short edge is scaled to 8/7 of that size, and the center cropped to it.

    Args:
        cfg (Config): Of the network.
        source (str | Path): A folder, with labels one of a sub-folder a
            class; or a list of files below the list's folder, a path a line,
            with labels a space and the number of the class. LIST@FOLDER if
            they are below another folder.
        with_label (bool): Whether labels are read. Without them images that
            can't be read are named and passed over. Defaults to False.

    Returns:
        dict[str, Any]: Settings, see :func:`build_ordered_dataloader`.

    Raises:
        FileNotFoundError: If there is no such source.
        ValueError: If the config does not tell how images are prepared.
    """
    source = Path(source)
    folder = source.parent
    if not source.exists():
        # a path may have this sign in it, too
        name, at, below = str(source).rpartition('@')
        if at:
            source, folder = Path(name), Path(below)
    for path in (source, folder):
        if not path.exists():
            raise FileNotFoundError(
                f'There is no "{path}" (looked from "{Path.cwd()}"): name a '
                'folder of images, or a list of files, LIST or LIST@FOLDER.'
            )
    found = [cfg[key] for key in PREPARED_AS if cfg.get(key)]
    if found:
        settings = copy.deepcopy(found[0].to_dict())
    elif (size := training_size(cfg)) is not None:
        settings = _prepared_at(size)
    else:
        raise InputError(
            f'{cfg.filename} has neither val_dataloader nor test_dataloader, '
            'which tell how images are prepared, nor a size of training '
            'images. Add one.'
        )
    dataset: Any = dict(
        type='mm_rotssl.ImageFolder',
        data_root=str(source),
        with_label=with_label,
        test_mode=with_label,
        # each is named in a warning
        max_broken=sys.maxsize,
        pipeline=_loading_pipeline(cfg, settings['dataset']),
    )
    if source.is_file():
        # absolute: it is not below the folder
        dataset |= dict(data_root=str(folder), ann_file=str(source.resolve()))
    settings['dataset'] = dataset
    return settings


def _prepared_at(size: int) -> dict[str, Any]:
    return dict(
        batch_size=32,
        num_workers=2,
        persistent_workers=False,
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            pipeline=[
                dict(type='mm_rotssl.LoadIntactImage'),
                dict(
                    type='mmpretrain.ResizeEdge',
                    scale=round(8 / 7 * size),
                    edge='short',
                ),
                dict(type='mmpretrain.CenterCrop', crop_size=size),
                dict(type='mmpretrain.PackInputs'),
            ]
        ),
    )


def _loading_pipeline(cfg: Config, dataset: Mapping[str, Any]) -> list[Any]:
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    pipeline = list(dataset.get('pipeline') or [])
    if any('Load' in str(step['type']) for step in pipeline):
        # mmcv's ends in an assertion where an image can't be read
        return [
            dict(type='mm_rotssl.LoadIntactImage')
            if step == dict(type='LoadImageFromFile')
            else step
            for step in pipeline
        ]
    size = training_size(cfg)
    if size is None:
        raise InputError(
            f'{cfg.filename} prepares images that are in memory, and does '
            'not tell the size of an image: images of files need '
            "dict(type='mm_rotssl.LoadIntactImage') and what makes them "
            'equally large in the pipeline of val_dataloader.'
        )
    return [
        # datasets in memory have this order
        dict(type='mm_rotssl.LoadIntactImage', channel_order='rgb'),
        dict(type='ResizeEdge', scale=size, edge='short'),
        dict(type='CenterCrop', crop_size=size),
        *pipeline,
    ]


def image_settings(
    cfg: Config, images: str | Path | None = None
) -> dict[str, Any]:
    """Describe a dataloader of images whose labels, if any, are not needed.

    Args:
        cfg (Config): Of the network.
        images (str | Path, optional): A folder or a list of files. Defaults
            to None: those that the config validates on, else the folder that
            it trains on.

    Returns:
        dict[str, Any]: Settings, see :func:`build_ordered_dataloader`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If the config names no images.
    """
    if images is not None:
        return folder_dataloader(cfg, images)
    if cfg.get('val_dataloader'):
        settings: dict[str, Any] = cfg.val_dataloader.to_dict()
        return settings
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if not dataset.get('data_root'):
        raise InputError(
            f'{cfg.filename or cfg.text} names no images. Name a folder: '
            '--images FOLDER.'
        )
    return folder_dataloader(cfg, dataset['data_root'])


def training_settings(cfg: Config) -> dict[str, Any]:
    """Describe a dataloader of the training images, prepared as for testing.

    Args:
        cfg (Config): Of the network.

    Returns:
        dict[str, Any]: Settings, see :func:`build_ordered_dataloader`.

    Raises:
        ValueError: If the config names no training images, or does not tell
            how images are prepared.
    """
    dataset: Any = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    found = [cfg[key] for key in PREPARED_AS if cfg.get(key)]
    if not dataset or not found:
        raise InputError(
            f'{cfg.filename or cfg.text} names no training images, or has '
            'neither val_dataloader nor test_dataloader, which tell how '
            'images are prepared. Name a folder: --images FOLDER.'
        )
    settings: dict[str, Any] = copy.deepcopy(found[0].to_dict())
    prepared: Any = settings['dataset']
    while 'pipeline' not in prepared and 'dataset' in prepared:
        prepared = prepared['dataset']
    settings['dataset'] = {
        **copy.deepcopy(dataset.to_dict()),
        'pipeline': prepared['pipeline'],
    }
    return settings


def labeled_settings(
    cfg: Config, labeled: Sequence[str | Path] | None = None
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Describe dataloaders of labeled images to learn from and to test on.

    Args:
        cfg (Config): Of the network.
        labeled (Sequence[str | Path], optional): For each a folder with a
            sub-folder a class, or a list of files with labels. Defaults to
            None, those of the config.

    Returns:
        tuple[dict, dict] | None: Settings, see
        :func:`build_ordered_dataloader`; None if the config has no such
        images.

    Raises:
        FileNotFoundError: If there is no such folder or list.
    """
    if labeled is not None:
        to_learn, to_test = (
            folder_dataloader(cfg, source, with_label=True)
            for source in labeled
        )
        return to_learn, to_test
    reference: Any = (cfg.get('val_cfg') or {}).get('reference_dataloader')
    if not (reference and cfg.get('val_dataloader')):
        return None
    return reference.to_dict(), cfg.val_dataloader.to_dict()
