"""How sure it is that an image is turned by what its label says."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mm_rotssl.ops import check_rotations
from mm_rotssl.utils import open_arrays, write_arrays

TOOL = 'mm-rotssl estimate-noise'
# the exponent of the released code
GAMMA = 2.0


def upright_index(rotations: Sequence[int]) -> int:
    """Place of the un-rotated copy.

    Args:
        rotations (Sequence[int]): Angles in degrees.

    Returns:
        int: Index of 0 in them.

    Raises:
        ValueError: If it is not among them.
    """
    if 0 not in rotations:
        raise ValueError(
            f'rotations={tuple(rotations)} holds no 0: without un-rotated '
            'copies there is no probability of being one. Leave the noise '
            'weights out, or add 0.'
        )
    return tuple(rotations).index(0)


def noise_weights(
    probabilities: np.ndarray, rotations: Sequence[int], gamma: float = GAMMA
) -> np.ndarray:
    r"""Weights of the rotation loss.

    .. math:: w_{i,y} = 1 - p_{i,y}^\gamma, \quad w_{i,0} = 1

    A rotated copy that looks un-rotated has an unreliable label and counts
    little; the un-rotated copy's own label is never in doubt.

    Source: Feng, Xu and Tao, *Self-Supervised Representation Learning by
    Rotation Feature Decoupling*, CVPR 2019, section 3.1; the exponent is
    that of the probability, as in the official code, not of 1 - p.

    Args:
        probabilities (ndarray): Of being un-rotated, (N, R), 0..1.
        rotations (Sequence[int]): The R angles in degrees.
        gamma (float): Exponent. Defaults to 2.

    Returns:
        ndarray: (N, R), of the same dtype.

    Examples:
        >>> import numpy as np
        >>> p = np.array([[0.9, 0.0, 0.5, 1.0]])
        >>> noise_weights(p, (0, 90, 180, 270)).tolist()
        [[1.0, 1.0, 0.75, 0.0]]
    """
    weights = 1 - probabilities**gamma
    weights[:, upright_index(rotations)] = 1
    return weights


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
            # UTF-8: NumPy's own text takes four bytes a letter
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
            path, 'rotation probabilities', TOOL, 'set model.noise_file=None'
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
        # NaN is not in it either
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
                f'{self.rotations}, and model.rotations is '
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
