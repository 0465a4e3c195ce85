import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.fileio import exists, get_file_backend, isdir, list_from_file
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset

from mm_rotssl.registry import DATASETS

from .image_files import EXTENSIONS, find_class_folders, find_images
from .transforms.loading import BrokenImageError

# lines of a list of which it is checked that they name files
LINES_CHECKED = 20
# what may be between a path and its label
SEPARATORS = {' ': 'space', ',': 'comma', '\t': 'tab', ';': 'semicolon'}
# what makes a path of one that is written otherwise
CHANGES: Sequence[tuple[Callable[[str], str], str]] = (
    (
        lambda path: path.removeprefix('\ufeff'),
        'a byte order mark: save the list as UTF-8 without',
    ),
    (str.strip, 'spaces around the path: remove them'),
    (lambda path: path.strip('"\''), 'quotes: remove them'),
    (lambda path: path.replace('\\', '/'), 'backslashes: write slashes'),
)


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

    Which files of a folder are images is said at
    :func:`mm_rotssl.datasets.find_images`. A list of files, ``ann_file``, is
    taken at its word: a path a line, below the folder, and with
    ``with_label=True`` a space and the number of the class.

    Args:
        data_root (str): The folder, searched with all its sub-folders.
            Defaults to ''.
        with_label (bool): Take the names of the sub-folders as classes, or
            the numbers of the list. With the names of classes given, in
            ``metainfo=dict(classes=[...])``, a sub-folder's label is the
            place of its name among them; if none of the sub-folders is
            named there, they are numbered in alphabetical order. Defaults to
            False.
        max_broken (int): How many broken files are skipped before the run
            stops. Defaults to 10.
        extensions (Sequence[str]): Endings of the files' names, in lower
            case. Defaults to those of JPEG, PNG, BMP, WebP, TIFF and PNM.
        **kwargs: Other arguments of ``CustomDataset``.

    Raises:
        FileNotFoundError: If the folder or the list does not exist.
        RuntimeError: If there is no image in it; when iterated, if more
            than ``max_broken`` files, or all of them, are broken.
        ValueError: If no folder is given, the list is in another form or its
            files do not exist, or sub-folders are not among the classes.
    """

    def __init__(
        self,
        data_root: str = '',
        with_label: bool = False,
        max_broken: int = 10,
        extensions: Sequence[str] = EXTENSIONS,
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
        if self.with_label:
            found = find_class_folders(folder, self.extensions)
            self.folder_to_idx = self._number_folders(found)
            samples: list = [
                (f'{name}/{path}', self.folder_to_idx[name])
                for name, paths in found.items()
                for path in paths
            ]
        else:
            samples = find_images(folder, self.extensions)
        if not samples:
            raise RuntimeError(
                f'No image was found in "{folder}". Looked for names that '
                f'end in {", ".join(sorted(self.extensions))}, in upper or '
                'lower case, in all sub-folders; set `extensions` of the '
                'dataset if yours differ.'
            )
        return samples

    def _number_folders(self, found: dict[str, list[str]]) -> dict[str, int]:
        """The label of each sub-folder."""
        empty = [name for name, paths in found.items() if not paths]
        if empty:
            print_log(
                f'No image was found in the folder {", ".join(empty)} of '
                f'"{self.img_prefix}".',
                'current',
                logging.WARNING,
            )
        names, classes = list(found), self.CLASSES
        if classes is None:
            self._metainfo['classes'] = tuple(names)
        elif set(names).isdisjoint(classes):
            # others than the folders', such as those of WordNet's numbers
            if len(names) != len(classes):
                raise ValueError(
                    f'"{self.img_prefix}" has {len(names)} folders of '
                    f'classes, none of which is named in the {len(classes)} '
                    'classes of the dataset. Name them as the folders are.'
                )
        else:
            others = set(names) - set(classes)
            if others:
                raise ValueError(
                    f'The folders {", ".join(sorted(others))} of '
                    f'"{self.img_prefix}" are not among the classes of the '
                    f'dataset, {", ".join(map(str, classes))}. Add them to '
                    'its metainfo, or move them elsewhere.'
                )
            names = list(classes)
        return {name: label for label, name in enumerate(names)}

    def load_data_list(self) -> list[dict]:
        """List the images, of the folder or as the list says.

        Returns:
            list[dict]: ``img_path``, and with labels ``gt_label``, int.
        """
        if not self.ann_file:
            found: list[dict] = super().load_data_list()
            return found
        if not exists(self.ann_file):
            raise FileNotFoundError(
                f'There is no list "{self.ann_file}" of images (looked from '
                f'"{Path.cwd()}"). Set ann_file of the dataset to an existing '
                'one; it is looked for below data_root.'
            )
        lines = [
            (number, line)
            for number, line in enumerate(list_from_file(self.ann_file), 1)
            if line.strip()
        ]
        if not lines:
            raise RuntimeError(f'The list "{self.ann_file}" is empty.')
        # the first, the last, and some between
        for i in range(min(LINES_CHECKED, len(lines))):
            place = i * (len(lines) - 1) // max(1, LINES_CHECKED - 1)
            self._check_line(*lines[place])
        return [self._read_line(*line) for line in lines]

    def _place(self, path: str) -> str:
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        joined: str = backend.join_path(self.img_prefix, path)
        return joined

    def _read_line(self, number: int, line: str) -> dict:
        if not self.with_label:
            return dict(img_path=self._place(line))
        path, _, label = line.strip().rpartition(' ')
        count = len(self.CLASSES or ())
        if not path or not label.isdecimal() or int(label) >= (count or 2**31):
            wanted = f'from 0 to {count - 1}' if count else 'from 0'
            raise ValueError(
                f'{self.ann_file}, line {number}: "{line}" must be a path, a '
                f'space and the number of a class, {wanted}.'
            )
        return dict(img_path=self._place(path), gt_label=int(label))

    def _check_line(self, number: int, line: str) -> None:
        """Explain why a line names no file, before it is called broken."""
        path = line
        if self.with_label:
            path = line.strip().rpartition(' ')[0] or line
        if exists(self._place(path)):
            return
        where = f'{self.ann_file}, line {number}: '
        for plain, cause in _other_readings(line):
            if plain and exists(self._place(plain)):
                raise ValueError(f'{where}"{line}" names no file. It {cause}.')
        raise ValueError(
            f'{where}there is no file "{self._place(path)}". Paths are below '
            f'data_root and data_prefix of the dataset, "{self.img_prefix}".'
        )

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
        if self._broken[idx]:
            # it was drawn before, perhaps by another worker at this moment
            return
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


def _other_readings(line: str) -> Iterator[tuple[str, str]]:
    """What a line may be meant to say, and what has to be changed."""
    for mark, name in (('', ''), *SEPARATORS.items()):
        path, wrong = line, []
        if mark:
            path = line.rpartition(mark)[0]
            wrong.append(
                f'has something behind the {name}, such as a label: remove '
                'it, or set with_label=True of the dataset'
                + ('' if mark == ' ' else f' and make the {name} a space')
            )
        for change, what in CHANGES:
            if change(path) != path:
                path = change(path)
                wrong.append(f'has {what}')
        yield path, '; it '.join(wrong)
