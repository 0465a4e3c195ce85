"""Classes of two datasets are the same if their names are, not their numbers.

A label is a position in its dataset's own list of classes. Of folders it is
the alphabetical place of a sub-folder: without one of them all that follow
have other numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from mm_rotssl.utils import InputError

# where the config names the images
REFERENCE, TEST = 'val_cfg.reference_dataloader', 'val_dataloader'
MAX_NAMED = 10


def list_classes(dataset: Any) -> list[str]:
    """List the names of the classes of a dataset.

    Args:
        dataset (Dataset): The dataset, or a wrapper of one that has names.

    Returns:
        list[str]: By label; none if it has no names.
    """
    while dataset is not None:
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
        names = getattr(dataset, 'metainfo', {}).get('classes')
        if names:
            return [str(name) for name in names]
        dataset = getattr(dataset, 'dataset', None)
    return []


def match_labels(reference: Any, test: Any) -> torch.Tensor | None:
    """Find the label of each test class in the reference set.

    By the names of the classes, where both datasets have them. Else labels
    are taken as they are.

    Args:
        reference (Dataset): Labeled images that classify.
        test (Dataset): Labeled images to classify.

    Returns:
        Tensor | None: int64 (number of test classes,), the label in the
        reference set by that in the test set, -1 for a class without an
        image; None if they are the same.

    Raises:
        ValueError: If test images are of a class that the reference set does
            not have, or a name is there twice.
    """
    known, asked = list_classes(reference), list_classes(test)
    if known and known == asked:
        return None
    if not (known and asked):
        _check_numbers(reference, test, known, asked)
        return None
    for key, names in ((REFERENCE, known), (TEST, asked)):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(
                f'The classes of {REFERENCE} and {TEST} differ, and those of '
                f'{key} cannot be told apart by their names: '
                f'{_listed(twice)} is there twice. Give both datasets the '
                'same metainfo=dict(classes=[...]).'
            )
    places = {name: label for label, name in enumerate(known)}
    found = torch.tensor([places.get(name, -1) for name in asked])
    if (found < 0).any():
        missing = {
            asked[label] for label in list_labels(test) if found[label] < 0
        }
        if missing:
            raise ValueError(
                f'{TEST} has images of classes that {REFERENCE} does not '
                f'have, so that they can never be right: {_listed(missing)}. '
                f'{REFERENCE} has: {_listed(known)}. Use the same names, or '
                'leave these images out.'
            )
    return found


def label_matrix(
    dataset: Any,
    index: torch.Tensor,
    num_classes: int,
    test_to_reference: torch.Tensor | None = None,
) -> np.ndarray:
    """List for each image which classes it shows, one or several.

    Args:
        dataset (Dataset): The dataset, or a subset of it.
        index (Tensor): Places of the images in the dataset below all
            subsets, int64 (N,), see `Extracted`.
        num_classes (int): Number of columns.
        test_to_reference (Tensor, optional): See `match_labels`, by which
            labels become those of the reference set. Defaults to None, they
            are the same.

    Returns:
        ndarray: int8 (N, num_classes): 1 for a class in ``gt_label``; -1 for
        one that is in ``gt_label_difficult`` alone, as mmpretrain's ``VOC``
        has those that are not to be judged; else 0.

    Raises:
        InputError: If an image has no labels.
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    found = np.zeros((len(index), num_classes), np.int8)
    for row, place in zip(found, index.tolist(), strict=True):
        info = dataset.get_data_info(place)
        if info.get('gt_label') is None:
            raise InputError(
                f'{info.get("img_path", f"Image {place}")} of '
                f'{type(dataset).__name__} has no gt_label. Use a labeled '
                'dataset.'
            )
        for key, value in (('gt_label_difficult', -1), ('gt_label', 1)):
            labels = torch.as_tensor(
                np.ravel(info.get(key, ())), dtype=torch.int64
            )
            if test_to_reference is not None:
                labels = test_to_reference[labels]
            row[labels.numpy()] = value
    return found


def _check_numbers(
    reference: Any, test: Any, known: list[str], asked: list[str]
) -> None:
    """Compare labels of which some have no names."""
    labels = list_labels(test)
    allowed = set(range(len(known))) or list_labels(reference)
    if not labels or not allowed:
        # known only when the images are read
        return
    missing = labels - allowed
    # names of the test set say how large labels of the reference set may be
    if asked and not missing:
        missing = allowed - set(range(len(asked)))
    if missing:
        nameless = TEST if known else REFERENCE
        raise ValueError(
            f'{REFERENCE} and {TEST} number their classes differently: '
            f'label {_listed(missing)} is in one of them only, and '
            f'{nameless} has no names of classes to match them by. Give both '
            'datasets metainfo=dict(classes=[...]).'
        )


def list_labels(dataset: Any) -> set[int]:
    """List the labels that occur.

    Args:
        dataset (Dataset): The dataset, a subset or another wrapper of one; an
            image may have several labels.

    Returns:
        set[int]: None where they are not known without the images.
    """
    chosen: Sequence[int] | None = None
    while not hasattr(dataset, 'get_data_info'):
        if not hasattr(dataset, 'dataset'):
            return set()
        if isinstance(dataset, Subset):
            own = dataset.indices
            chosen = own if chosen is None else [own[i] for i in chosen]
        dataset = dataset.dataset
    if chosen is None:
        chosen = range(len(dataset))
    infos = map(dataset.get_data_info, chosen)
    found = (info.get('gt_label') for info in infos)
    return {
        int(label)
        for labels in found
        if labels is not None
        for label in np.ravel(labels)
    }


def _listed(names: Iterable[Any]) -> str:
    names = sorted(names)
    text = ', '.join(map(str, names[:MAX_NAMED]))
    more = len(names) - MAX_NAMED
    return f'{text} and {more} more' if more > 0 else text
