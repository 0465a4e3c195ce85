"""How sure it is that an image is rotated by what its label says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mm_rotssl.ops import check_rotations, upright_index
from mm_rotssl.utils import open_arrays, write_arrays

TOOL = 'mm-rotssl estimate-noise'


@dataclass(frozen=True)
class RotationNoise:
    """The probabilities of being un-rotated, for the images of a dataset.

    Attributes:
        keys (list[str]): Names of the N images, see
            :func:`mm_rotssl.datasets.image_keys`.
        probabilities (ndarray): float32 (N, R): for each image and
            rotation, the probability that a rotation network, which was not
            trained on the image, gives to "un-rotated".
        rotations (tuple[int]): The R angles in degrees, counter-clockwise.
        made_by (dict): Notes on how they were estimated, for the reader.
    """

    keys: list[str]
    probabilities: np.ndarray
    rotations: tuple[int, ...]
    made_by: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write a ``.npz`` file without pickled objects.

        It appears when it is complete.

        Args:
            path (str | Path): The file.
        """
        write_arrays(
            path,
            # UTF-8, because NumPy's strings take four bytes a character
            keys=np.array([key.encode() for key in self.keys]),
            probabilities=self.probabilities.astype(np.float32),
            rotations=np.array(self.rotations),
            made_by=np.array(json.dumps(self.made_by)),
        )

    @classmethod
    def load(cls, path: str | Path) -> 'RotationNoise':
        """Read a file and check what is in it.

        Args:
            path (str | Path): The file.

        Returns:
            RotationNoise: Its content.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no such file, an array has another shape, a
                probability is not in 0..1 or an image comes twice.
        """
        with open_arrays(
            path, 'rotation probabilities', TOOL, 'set the file to None'
        ) as arrays:
            keys = [key.decode() for key in arrays['keys'].tolist()]
            probabilities = arrays['probabilities'].astype(
                np.float32, casting='same_kind'
            )
            rotations = check_rotations(arrays['rotations'].tolist())
            made_by = json.loads(str(arrays['made_by']))
        want = (len(keys), len(rotations))
        if probabilities.shape != want:
            raise ValueError(
                f'The probabilities in "{path}" have the shape '
                f'{probabilities.shape}; its {want[0]} images and '
                f'{want[1]} rotations make {want}.'
            )
        # written so that NaN is found, too
        bad = ~((probabilities >= 0) & (probabilities <= 1)).all(1)
        if bad.any():
            raise ValueError(
                f'{bad.sum()} images in "{path}" have a probability that is '
                'not in 0..1:'
                + ''.join(
                    f'\n  {keys[i]}: {probabilities[i].tolist()}'
                    for i in bad.nonzero()[0][:5]
                )
            )
        if len(set(keys)) != len(keys):
            seen: set[str] = set()
            twice = [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            raise ValueError(
                f'{len(twice)} images are in "{path}" more than once, such '
                f'as {", ".join(twice[:5])}.'
            )
        return cls(keys, probabilities, rotations, made_by)

    def rows(
        self, keys: Sequence[str], rotations: Sequence[int], source: str
    ) -> np.ndarray:
        """Bring the probabilities into the order of a dataset.

        Args:
            keys (Sequence[str]): Names of its M images.
            rotations (Sequence[int]): The R angles that it is used with.
            source (str): Name of the file, for messages.

        Returns:
            ndarray: (M, R).

        Raises:
            ValueError: If they are for other rotations or an image is not
                among them.
        """
        if tuple(rotations) != self.rotations:
            raise ValueError(
                f'The probabilities in "{source}" are for the rotations '
                f'{self.rotations}, and rotations is '
                f'{tuple(rotations)}. Estimate them with a rotation network '
                'of the same rotations.'
            )
        places = {key: i for i, key in enumerate(self.keys)}
        missing = [key for key in keys if key not in places]
        if missing:
            raise ValueError(
                f'{len(missing)} of the {len(keys)} training images are not '
                f'among the {len(places)} in "{source}", such as '
                f'{", ".join(missing[:5])}. It has, for instance, '
                f'{", ".join(self.keys[:2])}. Estimate the probabilities on '
                f'the images that are trained on, with {TOOL}.'
            )
        return self.probabilities[[places[key] for key in keys]]

    def margins(self) -> np.ndarray:
        """How clear the orientation of each image is.

        Returns:
            ndarray: (N,), from 1, clear, to -1: the probability of being
            un-rotated of the image as it is, less that of the rotated
            copy which looks most un-rotated. Not above 0: no clear
            orientation.
        """
        upright = upright_index(self.rotations)
        rotated = np.delete(self.probabilities, upright, axis=1)
        return self.probabilities[:, upright] - rotated.max(1)
