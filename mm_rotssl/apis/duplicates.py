"""Images that are there twice, above all in the test and reference set."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Subset

from mm_rotssl.datasets import image_keys
from mm_rotssl.evaluation.functional import nearest_pairs, pixel_correlation
from mm_rotssl.evaluation.subject import Subject

# what JPEG of a fair quality leaves; different images of one digit can reach
# 0.991, photographs seldom 0.95
NEARLY_EQUAL = 0.99
# images that are searched for
MAX_QUERIES = 10_000
MAX_NAMED = 5


@dataclass(frozen=True)
class Duplicate:
    """Two images that are equal, or nearly.

    Args:
        sets (tuple[str, str]): Where they are: 'images', 'test' or
            'reference'.
        places (tuple[int, int]): Their places in the datasets.
        names (tuple[str, str]): Their files, or numbers.
        equal (bool): Whether the prepared images have the same pixels.
        correlation (float): Of the pixels.
    """

    sets: tuple[str, str]
    places: tuple[int, int]
    names: tuple[str, str]
    equal: bool
    correlation: float


def bottom_dataset(loader: DataLoader) -> Any:
    """Find the dataset that a loader's images are numbered in.

    Args:
        loader (DataLoader): Of a dataset, or of a part of one.

    Returns:
        Dataset: The whole one.
    """
    dataset = loader.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def find_duplicates(subject: Subject) -> list[Duplicate]:
    """Find images that are equal, or nearly.

    Looked for are test images among each other and in the reference set;
    without labels, images among each other. Pairs whose features are most
    similar are compared by their pixels, at most 1,000 of them, see
    `nearest_pairs`; of very many images 10,000 are looked for.

    Args:
        subject (Subject): Any network, and the images.

    Returns:
        list[Duplicate]: Equal ones first, then by correlation.
    """
    sets = {'images': subject.images}
    pairs = [('images', 'images')]
    if subject.reference is not None and subject.test is not None:
        sets = {'test': subject.test, 'reference': subject.reference}
        pairs = [('test', 'test')]
        if subject.test is not subject.reference:
            pairs.append(('test', 'reference'))
    found = {
        name: subject.store.extract(subject.model, loader)
        for name, loader in sets.items()
    }
    queries = next(iter(sets))
    count = len(found[queries].index)
    drawn = np.sort(
        np.random.default_rng(subject.seed).permutation(count)[:MAX_QUERIES]
    )
    duplicates = []
    for first, second in pairs:
        near = nearest_pairs(
            [f[drawn] for f in found[first].stages.values()],
            None if first == second else list(found[second].stages.values()),
        ).numpy()
        near[:, 0] = drawn[near[:, 0]]
        if first == second:
            near[:, 1] = drawn[near[:, 1]]
        index = [found[name].index.numpy() for name in (first, second)]
        duplicates += _compare(
            sets, (first, second), index[0][near[:, 0]], index[1][near[:, 1]]
        )
    return sorted(duplicates, key=lambda d: (not d.equal, -d.correlation))


def _compare(
    sets: dict[str, DataLoader],
    names: tuple[str, str],
    first: np.ndarray,
    second: np.ndarray,
) -> list[Duplicate]:
    """Look at the pixels of pairs of images."""
    datasets = [bottom_dataset(sets[name]) for name in names]

    def load(which: int, place: int) -> np.ndarray:
        pixels: np.ndarray = datasets[which][place]['inputs'].numpy()
        return pixels

    @cache
    def keys(which: int) -> list[str] | None:
        try:
            return image_keys(datasets[which])
        except (TypeError, ValueError):
            # joined datasets have no common names
            return None

    def name(which: int, place: int) -> str:
        found = keys(which)
        if found is None or found[place].startswith('pixels:'):
            return f'image {place}'
        return found[place]

    duplicates = []
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        a, b = load(0, i), load(1, j)
        equal = np.array_equal(a, b)
        correlation = 1.0 if equal else pixel_correlation(a, b)
        if correlation >= NEARLY_EQUAL:
            duplicates.append(
                Duplicate(
                    names, (i, j), (name(0, i), name(1, j)), equal, correlation
                )
            )
    return duplicates


def duplicate_remarks(duplicates: Sequence[Duplicate]) -> list[str]:
    """Tell of duplicates.

    Args:
        duplicates (Sequence[Duplicate]): What was found.

    Returns:
        list[str]: A sentence or two for the test images that are in the
        reference set, and for pairs within a set; none where there are none.
    """
    remarks = []
    leaked = [d for d in duplicates if d.sets == ('test', 'reference')]
    if leaked:
        count = len({d.places[0] for d in leaked})
        remarks.append(
            f'{_count(count, "test image")} {_is(count)} in the reference '
            f'set, too, or nearly: {_listed(leaked)}. Accuracy counts what '
            'could be remembered.'
        )
    for name in ('test', 'images'):
        twice = [d for d in duplicates if d.sets == (name, name)]
        if twice:
            what = 'test images' if name == 'test' else 'images'
            remarks.append(
                f'{_count(len(twice), "pair")} of {what} {_is(len(twice))} '
                f'equal, or nearly: {_listed(twice)}.'
            )
    return remarks


def _count(number: int, what: str) -> str:
    return f'{number} {what}{"" if number == 1 else "s"}'


def _is(number: int) -> str:
    return 'is' if number == 1 else 'are'


def _listed(duplicates: Sequence[Duplicate]) -> str:
    named = [' = '.join(d.names) for d in duplicates[:MAX_NAMED]]
    more = len(duplicates) - len(named)
    return ', '.join(named) + (f' and {more} more' if more else '')
