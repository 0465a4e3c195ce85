from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mm_rotssl.ops import check_rotations
from mm_rotssl.registry import TRANSFORMS

from ..rotation_noise import RotationNoise


@TRANSFORMS.register_module()
class LoadRotationNoise(BaseTransform):
    """Add how probable it is that each rotated copy looks un-rotated.

    For :class:`RotationFeatureDecoupling` with ``noise_start_epoch``. Which
    row of the file belongs to which image, :class:`BindDatasetHook` finds out
    before training.

    **Required Keys:**

    - sample_idx

    **Added Keys:**

    - rotation_noise (float32 (R,))

    Args:
        file (str, optional): Written by ``mm-rotssl estimate-noise``.
            Defaults to None: all probabilities are 0, so all weights 1.
        rotations (Sequence[int]): The R angles of the model in degrees.
            Defaults to (0, 90, 180, 270).

    Raises:
        ValueError: If ``rotations`` is no valid list of angles.
        RuntimeError: When applied, if there is a file and the dataset has not
            been bound.
    """

    def __init__(
        self,
        file: str | None = None,
        rotations: Sequence[int] = (0, 90, 180, 270),
    ) -> None:
        self.file = file
        self.rotations = check_rotations(rotations)
        self._rows: np.ndarray | None = None

    def bind_dataset(self, names: Sequence[str]) -> None:
        """Read the file, and bring its rows into the order of a dataset.

        Args:
            names (Sequence[str]): Of its images, by index.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it does not fit images or rotations.
        """
        if self.file is not None:
            noise = RotationNoise.load(self.file)
            self._rows = noise.rows(names, self.rotations, self.file)

    def transform(self, results: dict) -> dict:
        """Add the probabilities.

        Args:
            results (dict): With ``sample_idx``.

        Returns:
            dict: With ``rotation_noise``, float32 (R,).
        """
        if self.file is None:
            row = np.zeros(len(self.rotations), np.float32)
        elif self._rows is None:
            raise RuntimeError(
                f'LoadRotationNoise(file="{self.file}") does not know the '
                "training set. Add dict(type='mm_rotssl.BindDatasetHook') to "
                'custom_hooks.'
            )
        else:
            row = self._rows[results['sample_idx']]
        results['rotation_noise'] = row
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(file={self.file!r}, '
            f'rotations={self.rotations})'
        )
