import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.fileio import isdir
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset

from mm_rotssl.registry import DATASETS

from .transforms.loading import BrokenImageError


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """A folder of images, some of which may be broken.

    mmpretrain's ``CustomDataset`` with other defaults (no labels, more file
    types) that survives broken files in training: with
    ``mm_rotssl.LoadIntactImage`` in the pipeline each is named in one
    warning and replaced by another, random image, until there are more
    than ``max_broken``. With ``test_mode=True`` any broken file is an error.
    In a distributed run each process warns and counts for itself, its
    dataloader's workers together.

    Args:
        data_root (str): The folder, searched with all its sub-folders.
            Defaults to ''.
        with_label (bool): Take the names of the sub-folders as classes.
            Defaults to False.
        max_broken (int): How many broken files are skipped before the run
            stops. Defaults to 10.
        extensions (Sequence[str]): Endings of the files' names, in lower
            case. Defaults to those of JPEG, PNG, BMP, WebP, TIFF and PNM.
        **kwargs: Other arguments of ``CustomDataset``.

    Raises:
        FileNotFoundError: If the folder does not exist.
        RuntimeError: If there is no image in it; when iterated, if more
            than ``max_broken`` files, or all of them, are broken.
        ValueError: If no folder is given.
    """

    def __init__(
        self,
        data_root: str = '',
        with_label: bool = False,
        max_broken: int = 10,
        extensions: Sequence[str] = (
            '.jpg',
            '.jpeg',
            '.png',
            '.bmp',
            '.webp',
            '.tif',
            '.tiff',
            '.ppm',
            '.pgm',
        ),
        **kwargs: Any,
    ) -> None:
        if not (data_root or kwargs.get('data_prefix')):
            raise ValueError(
                'ImageFolder was given no folder: set data_root in the '
                "config's dataset, or on the command line with --cfg-options "
                'train_dataloader.dataset.data_root=FOLDER.'
            )
        self.max_broken = max_broken
        self._broken: torch.Tensor | None = None
        super().__init__(
            data_root=data_root,
            with_label=with_label,
            extensions=extensions,
            **kwargs,
        )

    def _find_samples(self) -> list:
        folder = self.img_prefix
        if not isdir(folder):
            raise FileNotFoundError(
                f'There is no folder "{folder}" of images (looked from '
                f'"{Path.cwd()}"). Set data_root of the dataset to an '
                'existing one.'
            )
        try:
            return super()._find_samples()
        except RuntimeError as error:
            raise RuntimeError(
                f'No image was found in "{folder}". Looked for names that '
                f'end in {", ".join(sorted(self.extensions))}, in upper or '
                'lower case, in all sub-folders; set `extensions` of the '
                'dataset if yours differ.'
            ) from error

    def full_init(self) -> None:
        """Read the list of files."""
        super().full_init()
        if self._broken is None:
            self._forget_broken()

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep only some of the files.

        Args:
            indices (int | Sequence[int]): Their positions, or how many of
                the first (negative: last) ones.
        """
        super().get_subset_(indices)
        self._forget_broken()

    def get_subset(self, indices: int | Sequence[int]) -> 'ImageFolder':
        """Make a dataset of some of the files.

        Args:
            indices (int | Sequence[int]): As for :meth:`get_subset_`.

        Returns:
            ImageFolder: The new dataset, with its own count.
        """
        subset: ImageFolder = super().get_subset(indices)
        subset._forget_broken()
        return subset

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on a file, or report that it is broken.

        Args:
            idx (int): Position in the list of files.

        Returns:
            Any: The pipeline's result; None, for which another image is
            then drawn, where the file is broken.

        Raises:
            BrokenImageError: If the file is broken and ``test_mode`` is set.
            RuntimeError: If more than ``max_broken`` files are broken.
        """
        if self.test_mode:
            return super().prepare_data(idx)
        assert self._broken is not None
        if self._broken[idx]:
            return None
        try:
            return super().prepare_data(idx)
        except BrokenImageError as error:
            self._report(idx, error)
            return None

    def _forget_broken(self) -> None:
        # in shared memory, because each dataloader worker has a copy of this
        # object and broken files are counted over all workers
        self._broken = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def _report(self, idx: int, error: BrokenImageError) -> None:
        assert self._broken is not None
        self._broken[idx] = True
        print_log(
            f'Broken image skipped: {error}',
            'current',
            # mmengine's logger drops warnings of all ranks but the first
            logging.ERROR if get_rank() else logging.WARNING,
        )
        count = int(self._broken.sum())
        if count > self.max_broken or count == len(self):
            names = [
                self.get_data_info(int(i))['img_path']
                for i in self._broken.nonzero().flatten()[:20]
            ]
            more = (
                f'\n  and {count - len(names)} more'
                if count > len(names)
                else ''
            )
            limit = (
                f'more than max_broken={self.max_broken}. Repair or remove '
                'them, or raise max_broken of the dataset'
                if count > self.max_broken
                else 'all that there are. Repair or replace them'
            )
            raise RuntimeError(
                f'{count} broken images in "{self.img_prefix}", {limit}:'
                '\n  ' + '\n  '.join(names) + more
            )
