import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log

from mm_rotssl.registry import DATASETS

from .exemplar_seeds import ExemplarSeeds, cut_window
from .picture_keys import picture_keys
from .seed_sampling import sample_seeds


@DATASETS.register_module()
class ExemplarDataset:
    """Seed patches of pictures, each its own class, many times over.

    An entry is a seed with its surroundings, the window, out of which
    :class:`RandomDeformation` in the pipeline takes a patch. Windows are
    scaled and cut once, when the data set is first used, and stay in memory:
    with the default deformations 20 kB a seed, in each process of a
    distributed run; dataloader workers share them.

    **Keys of an entry:**

    - img: the window, uint8 (S, S, 3)
    - valid: left, top, right and bottom of the part of it that is within the
      picture
    - exemplar_label: number of the seed, which is its class
    - sample_idx: number of the entry
    - img_path: name of the picture
    - deformation_seed: only with ``fixed_deformations``

    Source: Dosovitskiy et al., *Discriminative Unsupervised Feature Learning
    with Exemplar Convolutional Neural Networks*, NIPS 2014
    (https://arxiv.org/abs/1406.6909), section 2.1.

    Args:
        dataset (dict | BaseDataset): The pictures. Its pipeline loads
            ``img``, uint8 (H, W, 3), and does no more.
        seeds (str | dict | ExemplarSeeds): File of the seeds, see
            ``tools/sample_exemplar_seeds.py``; or settings of
            :func:`sample_seeds`, with which they are sampled at the start;
            or the seeds themselves.
        pipeline (Sequence): Transforms, with ``RandomDeformation``.
        num_deformations (int): Entries K a seed; the data set has N * K.
            Defaults to 150, as in the authors' code.
        fixed_deformations (bool): The K deformations of a seed are the same
            in every epoch, as the paper's, who stored them; else they are
            drawn anew, which is the limit of many. Defaults to False.
        random_seed (int): Of the fixed deformations. Defaults to 0.

    Raises:
        ValueError: If ``num_deformations`` is not positive, a picture of the
            file is not in the data set or its size has changed, or the
            pipeline is for patches of another size.
    """

    def __init__(
        self,
        dataset: dict | BaseDataset,
        seeds: str | dict | ExemplarSeeds,
        pipeline: Sequence,
        num_deformations: int = 150,
        fixed_deformations: bool = False,
        random_seed: int = 0,
        lazy_init: bool = False,
    ) -> None:
        if num_deformations < 1:
            raise ValueError(
                f'num_deformations={num_deformations} of ExemplarDataset '
                'must be positive.'
            )
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        self.dataset = dataset
        self.pipeline = Compose(pipeline)
        self.num_deformations = num_deformations
        self.fixed_deformations = fixed_deformations
        self.random_seed = random_seed
        self._fully_initialized = False
        self.source = 'the seeds'
        if isinstance(seeds, dict):
            seeds = sample_seeds(dataset, **seeds)
        elif not isinstance(seeds, ExemplarSeeds):
            self.source = f'"{seeds}"'
            seeds = ExemplarSeeds.load(seeds)
        self.seeds = seeds
        for transform in self.pipeline.transforms:
            size = getattr(transform, 'patch_size', self.seeds.patch_size)
            if size != self.seeds.patch_size:
                raise ValueError(
                    f'patch_size={size} of {type(transform).__name__}, and '
                    f'{self.source} are for {self.seeds.patch_size}. Set '
                    'it to that, or sample other seeds.'
                )
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """What the data set says of itself.

        Returns:
            dict: ``num_seeds``, the number of classes.
        """
        return dict(num_seeds=len(self.seeds))

    def full_init(self) -> None:
        """Cut the windows."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        places = {key: i for i, key in enumerate(picture_keys(self.dataset))}
        keys = self.seeds.keys
        missing = [key for key in keys if key not in places]
        if missing:
            raise ValueError(
                f'{len(missing)} of the {len(keys)} pictures of {self.source} '
                f'are not in the data set, such as {", ".join(missing[:5])}. '
                f'It has, for instance, {", ".join(list(places)[:2])}. Point '
                'data_root to the folder that the seeds were sampled from, '
                'or sample them anew.'
            )
        size = self.window_size
        count = len(self.seeds)
        self.windows = np.empty((count, size, size, 3), np.uint8)
        self.valid = np.empty((count, 4), np.int32)
        print_log(
            f'Cutting {count} windows out of {len(keys)} pictures: '
            f'{self.windows.nbytes / 1e6:.0f} MB.',
            'current',
        )
        order = np.argsort(self.seeds.pictures, kind='stable')
        ends = np.searchsorted(
            self.seeds.pictures[order], np.arange(len(keys)), side='right'
        )
        groups = np.split(order, ends[:-1])
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            done = threads.map(
                self._cut, [places[key] for key in keys], keys, groups
            )
            list(done)
        self._fully_initialized = True

    @property
    def window_size(self) -> int:
        """Side in pixels that the deformations of the pipeline need."""
        needed = [
            transform.window_size
            for transform in self.pipeline.transforms
            if hasattr(transform, 'window_size')
        ]
        return max(needed, default=self.seeds.patch_size)

    def _cut(self, index: int, key: str, group: np.ndarray) -> None:
        """Cut the windows of a picture's seeds."""
        info = self.dataset.get_data_info(index)
        picture = self.dataset.pipeline(info)['img']
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, 2)
        seeds = self.seeds
        for i in group.tolist():
            want = tuple(seeds.sizes[seeds.pictures[i]].tolist())
            if picture.shape[1::-1] != want:
                raise ValueError(
                    f'{key} is {picture.shape[1]}x{picture.shape[0]} pixels '
                    f'now and was {want[0]}x{want[1]} when {self.source} '
                    'were sampled. Restore it, or sample them anew.'
                )
            self.windows[i], self.valid[i] = cut_window(
                picture,
                seeds.centers[i],
                seeds.scales[i],
                seeds.patch_size,
                self.window_size,
            )

    def __len__(self) -> int:
        return len(self.seeds) * self.num_deformations

    def get_data_info(self, idx: int) -> dict:
        """Put an entry together.

        Args:
            idx (int): Its number, of N * K: entries of a seed follow each
                other.

        Returns:
            dict: See the class. The window is a copy.

        Raises:
            IndexError: If there is no such entry.
        """
        if not 0 <= idx < len(self):
            raise IndexError(f'Entry {idx} of {len(self)} of ExemplarDataset.')
        label, number = divmod(int(idx), self.num_deformations)
        info = dict(
            img=self.windows[label].copy(),
            img_shape=self.windows.shape[1:3],
            valid=tuple(self.valid[label].tolist()),
            exemplar_label=label,
            sample_idx=int(idx),
            img_path=self.seeds.keys[self.seeds.pictures[label]],
        )
        if self.fixed_deformations:
            info['deformation_seed'] = (self.random_seed, label, number)
        return info

    def __getitem__(self, idx: int) -> Any:
        """Run the pipeline on an entry.

        Args:
            idx (int): Its number.

        Returns:
            Any: The pipeline's result.
        """
        if not self._fully_initialized:
            self.full_init()
        return self.pipeline(self.get_data_info(idx))
