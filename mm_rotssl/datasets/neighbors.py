"""Which images of a dataset are alike, found beforehand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mm_rotssl.utils import open_arrays, write_arrays

TOOL = 'mm-rotssl mine-neighbors'


@dataclass(frozen=True)
class Neighbors:
    """The nearest neighbors of the images of a dataset, among themselves.

    Attributes:
        keys (list[str]): Names of the N images, see
            :func:`mm_rotssl.datasets.image_keys`.
        positions (ndarray): int32 (N, k), of each image the k nearest others,
            by their place in ``keys``, nearest first.
        made_by (dict): Notes on how they were found, for the reader.
    """

    keys: list[str]
    positions: np.ndarray
    made_by: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write a ``.npz`` file without pickled objects, at once.

        Args:
            path (str | Path): The file.
        """
        write_arrays(
            path,
            # UTF-8, because NumPy's strings take four bytes a character
            keys=np.array([key.encode() for key in self.keys]),
            positions=self.positions.astype(np.int32),
            made_by=np.array(json.dumps(self.made_by)),
        )

    @classmethod
    def load(cls, path: str | Path) -> 'Neighbors':
        """Read a file and check what is in it.

        Args:
            path (str | Path): The file.

        Returns:
            Neighbors: Its content.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no such file, or an image has itself or
                something else than an image as a neighbor.
        """
        with open_arrays(
            path, 'neighbors', TOOL, 'train on another algorithm'
        ) as arrays:
            keys = [key.decode() for key in arrays['keys'].tolist()]
            positions = arrays['positions'].astype(np.int64, casting='safe')
            made_by = json.loads(str(arrays['made_by']))
        rows = np.arange(len(keys))[:, None]
        if (
            positions.ndim != 2
            or len(positions) != len(keys)
            or not positions.shape[1]
            or ((positions < 0) | (positions >= len(keys))).any()
            or (positions == rows).any()
        ):
            raise ValueError(
                f'"{path}" does not have for each of its {len(keys)} images '
                f'other ones of them as neighbors. Make it with {TOOL}.'
            )
        return cls(keys, positions, made_by)

    def rows(self, keys: Sequence[str], source: str) -> np.ndarray:
        """Bring the neighbors into the order of a dataset.

        Args:
            keys (Sequence[str]): Names of its M images, all of the file's.
            source (str): Name of the file, for messages.

        Returns:
            ndarray: int64 (M, k), places in the dataset.

        Raises:
            ValueError: If the dataset has not the images of the file.
        """
        places = {key: i for i, key in enumerate(keys)}
        if places.keys() != set(self.keys) or len(places) != len(keys):
            others = sorted(places.keys() ^ set(self.keys))
            raise ValueError(
                f'The neighbors in "{source}" are of other images than those '
                f'that are trained on: {len(self.keys)} and {len(keys)}, of '
                f'which {len(others)} are in one of them only, such as '
                f'{", ".join(others[:3])}. Find those of the training images '
                f'with {TOOL}.'
            )
        order = np.array([places[key] for key in self.keys])
        found = np.empty_like(self.positions, dtype=np.int64)
        found[order] = order[self.positions]
        return found
