"""Configs that were written for the names before 0.1.0."""

import logging
from typing import Any

from mmengine.logging import print_log

TYPES = {
    'BindPicturesHook': 'BindDatasetHook',
    'SeedsCheckHook': 'BindDatasetHook',
    'CheckpointGuardHook': 'CheckpointCheckHook',
    'BatchLossHook': 'BatchSizeCheckHook',
    'TaskDataset': 'StackedDataset',
    'NearestNeighbourQueue': 'NearestNeighborQueue',
    'RandomResizedCrop': 'RandomResizedCropFlip',
    'LoadImageFromFile': 'LoadIntactImage',
}
ARGUMENTS = {
    'KNNValLoop': {'bank_dataloader': 'reference_dataloader'},
    'ExemplarDataset': {'seeds': 'seed_patches'},
    'ExemplarHead': {'num_seeds': 'num_exemplars'},
    'DecouplingProbe': {'max_pictures': 'max_images'},
}
SCOPE = 'mm_rotssl.'


def translate_old_names(node: Any) -> None:
    """Give the parts of a config the names that they have now.

    A warning tells each that was changed; CHANGELOG.md lists them all.

    Args:
        node (Any): A config or a part of it, changed in place.
    """
    if isinstance(node, (list, tuple)):
        for child in node:
            translate_old_names(child)
    if not isinstance(node, dict):
        return
    kind = node.get('type')
    if isinstance(kind, str) and kind.startswith(SCOPE):
        kind = kind.removeprefix(SCOPE)
        if kind in TYPES:
            node['type'] = SCOPE + TYPES[kind]
            _warn(SCOPE + kind, node['type'])
        for old, new in ARGUMENTS.get(kind, {}).items():
            if old in node:
                node[new] = node.pop(old)
                _warn(f'{old} of {SCOPE}{kind}', new)
        sampling = node.get('seed_patches')
        if isinstance(sampling, dict) and 'num_seeds' in sampling:
            sampling['num_exemplars'] = sampling.pop('num_seeds')
            _warn(f'seed_patches.num_seeds of {SCOPE}{kind}', 'num_exemplars')
    for child in node.values():
        translate_old_names(child)


def _warn(old: str, new: str) -> None:
    print_log(
        f'{old} is now called {new}: change the config.',
        'current',
        logging.WARNING,
    )
