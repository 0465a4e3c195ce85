from collections.abc import Mapping
from typing import Any

from mm_rotssl.registry import DATASETS


@DATASETS.register_module()
class StackedDataset:
    r"""One stream of data for each task of a :class:`MultiTask`.

    An entry holds one of each stream, ``{'rotation': ..., 'clusters': ...}``,
    each from its own dataset through its own pipeline;
    ``collate_fn=dict(type='default_collate')`` makes batches of the same
    form.

    It is as long as the longest stream, and the shorter ones begin again:
    with T streams, number s of them (from 0) N long, entry i is

    .. math::
        (i + \lfloor s N / T \rfloor) \bmod N

    of that stream. So in an epoch each image of a stream comes equally
    often, give or take one, whatever the order in which the sampler asks,
    and those that come once more are the same in every epoch. The shift
    keeps streams of the same images from showing the same ones in a step.
    The map is fixed: which entries meet in a batch changes with the sampler's
    order. A batch may hold an image of a shorter stream twice.

    Args:
        datasets (dict[str, dict | Dataset]): The streams by the name of their
            task.

    Raises:
        ValueError: If there is no stream, or one is empty or named as the
            parts of a batch are.

    Examples:
        >>> stream = StackedDataset(dict(long='abcdef', short='xyz'))
        >>> [stream[i]['short'] for i in range(len(stream))]
        ['y', 'z', 'x', 'y', 'z', 'x']
    """

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        if not datasets:
            raise ValueError('datasets of StackedDataset names no stream.')
        for name in ('inputs', 'data_samples'):
            if name in datasets:
                raise ValueError(
                    f'A stream in datasets of StackedDataset is named '
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
        """What the streams say of themselves.

        Returns:
            dict[str, dict]: Their ``metainfo`` by name.
        """
        return {
            name: getattr(dataset, 'metainfo', {})
            for name, dataset in self.datasets.items()
        }

    def full_init(self) -> None:
        """Prepare the streams.

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
            dict[str, Any]: What each stream's pipeline gives.

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
