import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log

from mm_rotssl.registry import DATASETS
from mm_rotssl.utils import fingerprint

from ..image_keys import image_keys
from .seed_patch_sampling import sample_seed_patches
from .seed_patches import SeedPatches, cut_window, load_image


@DATASETS.register_module()
class ExemplarDataset:
    """Seed patches of images, each its own class, many times over.

    An entry is a seed patch with its surroundings, the window, out of which
    :class:`RandomDeformation` in the pipeline takes a patch. Windows are
    scaled and cut once, when the dataset is first used, and stay in memory:
    with the default deformations 20 kB each, in each process of a
    distributed run; dataloader workers share them.

    **Keys of an entry:**

    - img: the window, (S, S, C), uint8 (S, S, 3) of ordinary images
    - valid: left, top, right and bottom of the part of the window that is
      within the image
    - exemplar_label: number of the seed patch, which is its class
    - sample_idx: number of the entry
    - img_path: name of the image
    - deformation_seed: only with ``fixed_deformations``

    Source: Dosovitskiy et al., *Discriminative Unsupervised Feature Learning
    with Exemplar Convolutional Neural Networks*, NIPS 2014
    (https://arxiv.org/abs/1406.6909), section 2.1.

    Args:
        dataset (dict | BaseDataset): The images. Its pipeline loads
            ``img``, uint8 or float32 (H, W, C), and does no more.
        seed_patches (str | dict | SeedPatches): File of the seed patches, see
            ``mm-rotssl sample-patches``; or settings of
            :func:`sample_seed_patches`, with which they are sampled at the
            start; or the seed patches themselves.
        pipeline (Sequence): Transforms, with ``RandomDeformation``.
        num_deformations (int): Entries K of each of the N seed patches; the
            dataset has N * K. Defaults to 150, as in the authors' code.
        fixed_deformations (bool): The K deformations of a seed patch are the
            same in every epoch, as in the paper, whose authors stored them;
            else they are drawn anew in each, which is the limit of large K.
            Defaults to False.
        random_seed (int): Seed of the fixed deformations. Defaults to 0.
        lazy_init (bool): Read the images at first use instead of now.
            Defaults to False.

    Raises:
        ValueError: If ``num_deformations`` is not positive, an image of the
            file is not in the dataset or its size has changed, or the
            pipeline is for patches of another size.
    """

    def __init__(
        self,
        dataset: dict | BaseDataset,
        seed_patches: str | dict | SeedPatches,
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
        self.source = 'the seed patches'
        if isinstance(seed_patches, dict):
            seed_patches = sample_seed_patches(dataset, **seed_patches)
        elif not isinstance(seed_patches, SeedPatches):
            self.source = f'"{seed_patches}"'
            seed_patches = SeedPatches.load(seed_patches)
        self.seed_patches = seed_patches
        for transform in self.pipeline.transforms:
            size = getattr(
                transform, 'patch_size', self.seed_patches.patch_size
            )
            if size != self.seed_patches.patch_size:
                raise ValueError(
                    f'patch_size={size} of {type(transform).__name__}, and '
                    f'{self.source} are for {self.seed_patches.patch_size}. '
                    'Set it to that, or sample other seed patches.'
                )
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict:
        """Information on the dataset.

        Returns:
            dict: ``num_exemplars``, the number of classes, and the
            ``fingerprint`` of the seed patches, an int.
        """
        return dict(
            num_exemplars=len(self.seed_patches),
            fingerprint=fingerprint(self.seed_patches.names),
        )

    def full_init(self) -> None:
        """Find the images, and cut the windows."""
        if self._fully_initialized:
            return
        self.dataset.full_init()
        places = {key: i for i, key in enumerate(image_keys(self.dataset))}
        keys = self.seed_patches.keys
        missing = [key for key in keys if key not in places]
        if missing:
            raise ValueError(
                f'{len(missing)} of the {len(keys)} images of {self.source} '
                f'are not in the dataset, such as {", ".join(missing[:5])}. '
                f'It has, for instance, {", ".join(list(places)[:2])}. Point '
                'data_root to the folder that the seed patches were sampled '
                'from, or sample them anew.'
            )
        # index in the dataset of each image of the seed patches
        self.places = [places[key] for key in keys]
        self._cut_all()
        self._fully_initialized = True

    def _cut_all(self) -> None:
        count, keys = len(self.seed_patches), self.seed_patches.keys
        self.valid = np.empty((count, 4), np.int32)
        windows = None
        order = np.argsort(self.seed_patches.images, kind='stable')
        ends = np.searchsorted(
            self.seed_patches.images[order], np.arange(len(keys)), side='right'
        )
        groups = np.split(order, ends[:-1])
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for key, group, found in zip(
                keys, groups, threads.map(self._cut, groups), strict=True
            ):
                for i, (window, valid) in zip(group, found, strict=True):
                    if windows is None:
                        # all are like the first
                        windows = np.empty(
                            (count, *window.shape), window.dtype
                        )
                        print_log(
                            f'Cutting {count} windows out of {len(keys)} '
                            f'images: {windows.nbytes / 1e6:.0f} MB.',
                            'current',
                        )
                    if window.shape != windows.shape[1:]:
                        raise ValueError(
                            f'{key} has {window.shape[2]} channels, and other '
                            f'images have {windows.shape[3]}. Convert it, or '
                            "leave color_type='color' of LoadIntactImage."
                        )
                    windows[i], self.valid[i] = window, valid
        assert windows is not None
        self.windows = windows

    @property
    def window_size(self) -> int:
        """Side in pixels that the deformations of the pipeline need."""
        needed = [
            transform.window_size
            for transform in self.pipeline.transforms
            if hasattr(transform, 'window_size')
        ]
        return max(needed, default=self.seed_patches.patch_size)

    def _cut(self, group: Sequence[int]) -> list[tuple]:
        """Cut the windows of seed patches of one image."""
        if not len(group):
            return []
        seed_patches = self.seed_patches
        number = int(seed_patches.images[group[0]])
        image = load_image(self.dataset, self.places[number])
        want = tuple(seed_patches.sizes[number].tolist())
        if image.shape[1::-1] != want:
            raise ValueError(
                f'{seed_patches.keys[number]} is {image.shape[1]}x'
                f'{image.shape[0]} pixels now and was {want[0]}x{want[1]} '
                f'when {self.source} were sampled. Restore it, or sample '
                'them anew.'
            )
        return [
            cut_window(
                image,
                seed_patches.centers[i],
                seed_patches.scales[i],
                seed_patches.patch_size,
                self.window_size,
            )
            for i in group
        ]

    def __len__(self) -> int:
        return len(self.seed_patches) * self.num_deformations

    def get_data_info(self, idx: int) -> dict:
        """Put an entry together.

        Args:
            idx (int): Its number, of N * K: the entries of a seed patch follow
                each other.

        Returns:
            dict: See the class. The window is a copy.

        Raises:
            IndexError: If there is no such entry.
        """
        if not 0 <= idx < len(self):
            raise IndexError(f'Entry {idx} of {len(self)} of ExemplarDataset.')
        label, number = divmod(int(idx), self.num_deformations)
        window, valid = self.windows[label].copy(), self.valid[label]
        info = dict(
            img=window,
            img_shape=window.shape[:2],
            valid=tuple(map(int, valid)),
            exemplar_label=label,
            sample_idx=int(idx),
            img_path=self.seed_patches.keys[self.seed_patches.images[label]],
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
