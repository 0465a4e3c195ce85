from collections.abc import Mapping
from typing import Any

from mm_rotssl.registry import DATASETS


@DATASETS.register_module()
class StackedDataset:
    r"""A dataset for each task of a :class:`MultiTask`.

    An entry holds one of each dataset, ``{'rotation': ..., 'clusters': ...}``,
    each from its own dataset through its own pipeline;
    ``collate_fn=dict(type='default_collate')`` makes batches of the same
    form.

    It is as long as the longest dataset, and the shorter ones begin again:
    with T datasets, number s of them (from 0) N long, entry i is

    .. math::
        (i + \lfloor s N / T \rfloor) \bmod N

    of that dataset. So in an epoch each image of a dataset comes equally
    often, give or take one, whatever the order in which the sampler asks,
    and those that come once more are the same in every epoch. The shift
    keeps datasets of the same images from showing the same ones in a step.
    The map is fixed: which entries meet in a batch changes with the sampler's
    order. A batch may hold an image of a shorter dataset twice.

    Args:
        datasets (dict[str, dict | Dataset]): The datasets by the name of their
            task.

    Raises:
        ValueError: If there is no dataset, or one is empty or named as the
            parts of a batch are.

    Examples:
        >>> dataset = StackedDataset(dict(long='abcdef', short='xyz'))
        >>> [dataset[i]['short'] for i in range(len(dataset))]
        ['y', 'z', 'x', 'y', 'z', 'x']
    """

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        if not datasets:
            raise ValueError('datasets of StackedDataset names no dataset.')
        for name in ('inputs', 'data_samples'):
            if name in datasets:
                raise ValueError(
                    f'A dataset in datasets of StackedDataset is named '
                    f'"{name}", '
                    'as a part of any batch is. Choose another name.'
                )
        self.datasets: dict[str, Any] = {
            name: DATASETS.build(dataset)
            if isinstance(dataset, dict)
            else dataset
            for name, dataset in datasets.items()
        }
        self._lengths: dict[str, int] = {}

    @property
    def metainfo(self) -> dict:
        """What the datasets say of themselves.

        Returns:
            dict[str, dict]: Their ``metainfo`` by name.
        """
        return {
            name: getattr(dataset, 'metainfo', {})
            for name, dataset in self.datasets.items()
        }

    def full_init(self) -> None:
        """Prepare the datasets.

        Raises:
            ValueError: If one is empty.
        """
        if self._lengths:
            return
        lengths = {}
        for name, dataset in self.datasets.items():
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
            lengths[name] = len(dataset)
            if not lengths[name]:
                raise ValueError(
                    f'datasets.{name} of StackedDataset, a '
                    f'{type(dataset).__name__}, is empty.'
                )
        self._lengths = lengths

    def __len__(self) -> int:
        self.full_init()
        return max(self._lengths.values())

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Put an entry together.

        Args:
            idx (int): Its number.

        Returns:
            dict[str, Any]: What each dataset's pipeline gives.

        Raises:
            IndexError: If there is no such entry.
        """
        if not 0 <= idx < len(self):
            raise IndexError(f'Entry {idx} of {len(self)} of StackedDataset.')
        entry = {}
        for number, (name, dataset) in enumerate(self.datasets.items()):
            length = self._lengths[name]
            shift = number * length // len(self.datasets)
            entry[name] = dataset[(int(idx) + shift) % length]
        return entry
