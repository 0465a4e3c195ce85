"""Nearest neighbors of training images, for SCAN."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.registry import init_default_scope

from mm_rotssl.datasets import Neighbors, image_keys
from mm_rotssl.evaluation.feature_store import EMBEDDING, FeatureStore
from mm_rotssl.evaluation.functional import search_neighbors
from mm_rotssl.evaluation.labels import list_labels
from mm_rotssl.utils import InputError

from .entries import find_entry
from .networks import build_ordered_dataloader, load_network, read_network
from .sources import folder_dataloader, training_settings


class MinedNeighbors(NamedTuple):
    """What :func:`mine_neighbors` has found.

    Args:
        neighbors (Neighbors): What was written.
        stage (str): Name of the stage.
        purity (float, optional): How many neighbors have the image's label,
            in percent; None without labels, which have no part in it.
    """

    neighbors: Neighbors
    stage: str
    purity: float | None


def mine_neighbors(
    source: str | Path,
    out: str | Path,
    checkpoint: str | Path | None = None,
    *,
    images: str | Path | None = None,
    k: int = 20,
    stage: str | None = None,
    cache: str | Path | None = None,
    device: str = 'cpu',
    cfg_options: dict | None = None,
    report: Callable[[str], None] = print,
) -> MinedNeighbors:
    """Find the nearest neighbors of images among themselves, and write them.

    By cosine similarity of features, exactly; an image is no neighbor of its
    own. Images are prepared as for testing.

    Source: Van Gansbeke et al., *SCAN: Learning to Classify Images without
    Labels*, ECCV 2020 (https://arxiv.org/abs/2005.12320): k is 20, and 50 on
    ImageNet; on small datasets the embedding is compared, on ImageNet the
    backbone's features.

    Args:
        source (str | Path): Config, run or network, see :func:`find_entry`.
        out (str | Path): The file, ``.npz``, see :class:`Neighbors`.
        checkpoint (str | Path, optional): The weights, if ``source`` is a
            config. Defaults to None.
        images (str | Path, optional): Folder or list of the images. Defaults
            to None, those that the config trains on.
        k (int): Number of neighbors. Defaults to 20.
        stage (str, optional): Name of the stage, or 'embedding'. Defaults to
            None: the embedding, if the algorithm has one, else the last
            stage.
        cache (str | Path, optional): Folder that features are kept in.
            Defaults to None, a temporary one.
        device (str): Where the network runs. Defaults to 'cpu'.
        cfg_options (dict, optional): Dotted key -> value, settings of the
            config to replace. Defaults to None.
        report (Callable): Is told what is being done. Defaults to ``print``.

    Returns:
        MinedNeighbors: What was found.

    Raises:
        FileNotFoundError: If the checkpoint or folder does not exist.
        ValueError: If there are no more than k images, one can't be read, or
            the stage is not known.
    """
    entry = (
        find_entry(source)
        if checkpoint is None
        else find_entry(checkpoint, source)
    )
    run = entry.runs[0]
    cfg = read_network(run.config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model: Any = load_network(cfg, run.checkpoint).to(device)
    loader = build_ordered_dataloader(
        training_settings(cfg)
        if images is None
        else folder_dataloader(cfg, images)
    )
    keys = image_keys(loader.dataset)
    if not 1 <= k < len(keys):
        raise InputError(
            f'--k {k}: there are {len(keys)} images, so from 1 to '
            f'{len(keys) - 1} neighbors.'
        )
    found = FeatureStore(cache).extract(model, loader, report=report)
    if len(found.index) < len(keys):
        raise InputError(
            f'{len(keys) - len(found.index)} of {len(keys)} images can not '
            'be read, and have no neighbors. mm-rotssl check-images names '
            'them; take them out.'
        )
    names = list(found.stages)
    stage = stage or (EMBEDDING if EMBEDDING in names else names[-1])
    if stage not in names:
        raise InputError(
            f'--stage {stage}: the stages are {", ".join(names)}.'
        )
    report('neighbors')
    feats = found.stages[stage]
    _, positions = search_neighbors(feats, feats, k + 1)
    neighbors = Neighbors(
        keys,
        _without_itself(positions.numpy()),
        dict(
            config=str(run.config),
            checkpoint=str(run.checkpoint),
            stage=stage,
            k=k,
        ),
    )
    neighbors.save(out)
    return MinedNeighbors(
        neighbors, stage, _purity(neighbors.positions, found.labels, loader)
    )


def _without_itself(positions: np.ndarray) -> np.ndarray:
    """Leave out each row's own number, or else the last one.

    Where several images are the same it need not be the first.
    """
    own = positions == np.arange(len(positions))[:, None]
    own[~own.any(1), -1] = True
    return positions[~own].reshape(len(positions), -1)


def _purity(
    positions: np.ndarray, labels: torch.Tensor | None, loader: Any
) -> float | None:
    if labels is None or len(list_labels(loader.dataset)) < 2:
        return None
    numbers = labels.numpy()
    return 100 * float((numbers[positions] == numbers[:, None]).mean())
