from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.fileio import exists
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset

from mm_rotssl.registry import DATASETS

from .transforms.loading import BrokenImageError


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """A folder of pictures, some of which may be broken.

    mmpretrain's ``CustomDataset`` with other defaults (no labels, more file
    types) that survives broken files in training: with
    ``mm_rotssl.LoadImageFromFile`` in the pipeline each is named in one
    warning and replaced by another picture, until there are more than
    ``max_broken``. With ``test_mode=True`` any broken file is an error.

    Args:
        data_root (str): The folder, searched with all its sub-folders.
            Defaults to ''.
        with_label (bool): Take the names of the sub-folders as classes.
            Defaults to False.
        max_broken (int): How many broken files are skipped before the run
            stops. Defaults to 10.
        extensions (Sequence[str]): Names to look at, in lower case.
        **kwargs: Other arguments of ``CustomDataset``.

    Raises:
        FileNotFoundError: If the folder does not exist.
        RuntimeError: If there is no picture in it; when iterated, if more
            than ``max_broken`` files are broken.
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
        self._broken: Optional[torch.Tensor] = None
        super().__init__(
            data_root=data_root,
            with_label=with_label,
            extensions=extensions,
            **kwargs,
        )

    def _find_samples(self) -> list:
        folder = self.img_prefix
        if not exists(folder):
            raise FileNotFoundError(
                f'The folder of pictures "{folder}" does not exist (looked '
                f'from "{Path.cwd()}"). Set data_root of the dataset to an '
                'existing one.'
            )
        try:
            return super()._find_samples()
        except RuntimeError as error:
            raise RuntimeError(
                f'No picture was found in "{folder}". Looked for names that '
                f'end in {", ".join(sorted(self.extensions))}, in upper or '
                'lower case, in all sub-folders; set `extensions` of the '
                'dataset if yours differ.'
            ) from error

    def full_init(self) -> None:
        """Read the list of files."""
        super().full_init()
        if self._broken is None:
            # Shared, because each worker holds a copy of this object and
            # the count is over all of them.
            self._broken = torch.zeros(
                len(self), dtype=torch.bool
            ).share_memory_()

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on a file, or report that it is broken.

        Args:
            idx (int): Position in the list of files.

        Returns:
            Any: The pipeline's result; None, for which another picture is
            then drawn, where the file is broken.

        Raises:
            RuntimeError: If more than ``max_broken`` files are broken.
        """
        try:
            return super().prepare_data(idx)
        except BrokenImageError as error:
            if self.test_mode:
                raise
            self._report(idx, error)
            return None

    def _report(self, idx: int, error: BrokenImageError) -> None:
        assert self._broken is not None
        if not self._broken[idx]:
            self._broken[idx] = True
            print_log(f'Broken picture skipped: {error}', 'current', 30)
        count = int(self._broken.sum())
        if count > self.max_broken:
            names = [
                self.get_data_info(int(i))['img_path']
                for i in self._broken.nonzero().flatten()
            ]
            raise RuntimeError(
                f'{count} broken pictures in "{self.img_prefix}", more than '
                f'max_broken={self.max_broken}. Repair or remove them, or '
                'raise max_broken of the dataset:\n  '
                + '\n  '.join(names[: self.max_broken + 1])
            )
