from collections.abc import Mapping
from typing import Any

import numpy as np

from mm_rotssl.registry import DATASETS

from .image_keys import image_keys
from .neighbors import Neighbors


@DATASETS.register_module()
class NeighborPairs:
    """A dataset whose samples are an image and one of its neighbors.

    Of the image itself and its first ``num_neighbors`` neighbors one is
    drawn as the second: the image itself among them, as in the code of SCAN
    (Van Gansbeke et al., *SCAN: Learning to Classify Images without Labels*,
    ECCV 2020, https://arxiv.org/abs/2005.12320). Either is prepared for
    itself.

    Args:
        dataset (dict | Dataset): The images, one view each.
        neighbors (str): File that ``mm-rotssl mine-neighbors`` wrote for
            these images.
        num_neighbors (int, optional): Defaults to None, all in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, is of other images, or has fewer
            neighbors.
    """

    def __init__(
        self,
        dataset: Any,
        neighbors: str,
        num_neighbors: int | None = None,
    ) -> None:
        if isinstance(dataset, Mapping):
            dataset = DATASETS.build(dataset)
        self.dataset = dataset
        found = Neighbors.load(neighbors).rows(
            image_keys(dataset), str(neighbors)
        )
        if num_neighbors is not None and not (
            1 <= num_neighbors <= found.shape[1]
        ):
            raise ValueError(
                f'num_neighbors={num_neighbors} of NeighborPairs, and '
                f'"{neighbors}" has {found.shape[1]} of each image.'
            )
        self.neighbors = found[:, :num_neighbors]

    @property
    def metainfo(self) -> dict:
        """Of the dataset."""
        info: dict = self.dataset.metainfo
        return info

    def full_init(self) -> None:
        """Load the dataset's list."""
        self.dataset.full_init()

    def get_data_info(self, index: int) -> dict:
        """What is known of an image.

        Args:
            index (int): Its place.

        Returns:
            dict: Of the dataset.
        """
        info: dict = self.dataset.get_data_info(index)
        return info

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        """Prepare an image and a neighbor.

        Args:
            index (int): Place of the image.

        Returns:
            dict: ``inputs``, a list of the two, and the image's
            ``data_samples``.
        """
        row = self.neighbors[index]
        drawn = np.random.randint(-1, len(row))
        first = self.dataset[index]
        second = self.dataset[index if drawn < 0 else int(row[drawn])]
        return {**first, 'inputs': [first['inputs'], second['inputs']]}
